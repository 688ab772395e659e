"""A token server for docker-registry: ``python -m cais.testing.token_server PORT DIRECTORY``.

``prepare`` makes its key and certificate and returns the registry's part of the configuration. It
knows one user, jane, whose password is secret; as identity token it gives ``TOKEN``.

Spec: distribution, "Token Authentication Specification", "OAuth2 Token Authentication".
"""

from __future__ import annotations

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

USER, PASSWORD, TOKEN = "jane", "secret", "refresh-me"
SERVICE, ISSUER = "test registry", "test issuer"
_BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_LIFETIME_S = 300


def prepare(directory: Path, port: int) -> str:
    """Make ``key.pem`` and ``certificate.pem``; return ``auth`` of a registry's configuration."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(secret)
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return (
        f"auth: {{token: {{realm: 'http://localhost:{port}/token', service: '{SERVICE}', "
        f"issuer: '{ISSUER}', rootcertbundle: '{directory}/certificate.pem'}}}}"
    )


def main(port: int, directory: Path) -> None:
    """Serve until killed; each request is a line of ``requests.jsonl``."""
    log = directory / "requests.jsonl"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(self.path.partition("?")[2])
            authorization = self.headers.get("Authorization")
            if authorization not in (None, _BASIC):
                self.answer(401, {"details": "incorrect username or password"}, query)
                return
            token = {"token": sign(directory, query.get("scope", []), known=bool(authorization))}
            if authorization and "offline_token" in query:
                token["refresh_token"] = TOKEN
            self.answer(200, token, query)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            form = parse_qs(self.rfile.read(length).decode())
            if form.get("refresh_token") != [TOKEN]:
                self.answer(401, {"details": "unknown refresh token"}, form)
                return
            scopes = form.get("scope", [""])[0].split()
            self.answer(200, {"access_token": sign(directory, scopes, known=True)}, form)

        def answer(self, status: int, document: dict[str, Any], asked: dict[str, Any]) -> None:
            line = {"method": self.command, "status": status, **asked}
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def sign(directory: Path, scopes: list[str], *, known: bool) -> str:
    """Return a token that allows what a scope asks for; to nobody known, nothing."""
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = (directory / "certificate.pem").read_text()
    der = "".join(line for line in pem.splitlines() if "-" not in line)
    now = int(time.time())
    access = [scope.split(":") for scope in scopes] if known else []
    claims = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": USER if known else "",
        "iat": now,
        "nbf": now - 60,
        "exp": now + _LIFETIME_S,
        "jti": str(time.monotonic_ns()),
        "access": [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in access
        ],
    }
    header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
    text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    key = load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    made = key.sign(text.encode(), padding.PKCS1v15(), SHA256())
    return f"{text}.{_encoded(made)}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
