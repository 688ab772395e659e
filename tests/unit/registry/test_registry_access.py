"""Who is let in: passwords, TLS."""

import base64
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from cais.errors import ConflictError, InvalidArgumentError
from cais.registry.server.passwords import Passwords


def line(user: str, password: str, prefix: bytes = b"2b") -> str:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).replace(b"$2b", b"$" + prefix)
    return f"{user}:{hashed.decode()}\n"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text("# users\n\n" + line("ann", "secret") + line("bob", "pässword", b"2y"))
    return path


def test_nobody_without_a_password(serve: Callable[..., Any], users: Path) -> None:
    client = serve(htpasswd=users)
    for method, target in (
        ("GET", "/v2/"), ("GET", "/v2/_catalog"), ("GET", "/v2/a/manifests/x"),
        ("POST", "/v2/a/blobs/uploads/"), ("GET", "/nowhere"), ("DELETE", "/v2/a/manifests/x"),
    ):  # fmt: skip
        reply = client.ask(method, target)
        assert (reply.status, reply.codes) == (401, ["UNAUTHORIZED"])
        assert reply.headers["www-authenticate"].startswith('Basic realm="')
        assert reply.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (basic("ann", "secret"), 200), (basic("ann", "secret").replace("Basic", "basic"), 200),
        (basic("bob", "pässword"), 200), (basic("ann", "wrong"), 401), (basic("ann", ""), 401),
        (basic("", "secret"), 401), (basic("bob", "secret"), 401), (basic("eve", "secret"), 401),
        (basic("ann", "secret" + "x" * 100), 401), ("Basic", 401), ("Basic !", 401),
        ("Bearer secret", 401), ("Basic " + base64.b64encode(b"ann").decode(), 401),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), 401),
    ],
)  # fmt: skip
def test_passwords(serve: Callable[..., Any], users: Path, authorization: str, status: int) -> None:
    client = serve(htpasswd=users)
    for _ in range(2):  # the second time it may be remembered
        assert client.ask("GET", "/v2/", Authorization=authorization).status == status


def test_changes_of_the_file_count(serve: Callable[..., Any], users: Path) -> None:
    client = serve(htpasswd=users)
    assert client.ask("GET", "/v2/", Authorization=basic("ann", "secret")).status == 200
    users.write_text(line("ann", "changed") + line("carl", "new"))
    for user, password, status in (
        ("carl", "new", 200), ("ann", "secret", 401), ("ann", "changed", 200), ("bob", "x", 401),
    ):  # fmt: skip
        assert client.ask("GET", "/v2/", Authorization=basic(user, password)).status == status


@pytest.mark.parametrize("text", ["ann:secret", "ann:{SHA}x", "ann:$apr1$x$y", "ann", "a b:$2y$"])
def test_other_hashes_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line("ok", "ok") + text)
    with pytest.raises(InvalidArgumentError, match="line 2: not a user with a bcrypt hash"):
        Passwords(path)
    with pytest.raises(InvalidArgumentError, match="No such file"):
        Passwords(tmp_path / "none")


def test_tls(serve: Callable[..., Any], tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=x", "-days", "2",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    client = serve(certificate=certificate, key=key)
    origin = client.registry.origin
    assert origin.scheme == "https"
    context = ssl.create_default_context(cafile=str(certificate))
    with urllib.request.urlopen(f"{origin}/v2/", timeout=60, context=context) as reply:
        assert reply.read() == b"{}"


def test_one_server_for_a_root(serve: Callable[..., Any]) -> None:
    first = serve()
    with pytest.raises(ConflictError, match="another registry server uses"):
        serve()
    first.registry.close()
    assert serve().ask("GET", "/v2/").status == 200
