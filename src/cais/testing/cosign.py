"""Signatures of images as cosign writes them, by keys made on the spot."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"


class Signer:
    """A key pair, whose public half is the file ``path``.

    Args:
        directory: an existing one.
        kind: ``ecdsa``, ``ecdsa-384``, ``rsa`` or ``ed25519``.

    """

    def __init__(self, directory: Path, kind: str = "ecdsa") -> None:
        self.path = directory / f"{kind}.pub"
        self.sign: Callable[[bytes], bytes]
        if kind == "rsa":
            number = rsa.generate_private_key(65537, 2048)
            self.sign = lambda text: number.sign(text, padding.PKCS1v15(), hashes.SHA256())
            self._write(number.public_key())
        elif kind == "ed25519":
            edwards = ed25519.Ed25519PrivateKey.generate()
            self.sign = edwards.sign
            self._write(edwards.public_key())
        else:
            large = kind == "ecdsa-384"
            point = ec.generate_private_key(ec.SECP384R1() if large else ec.SECP256R1())
            way = ec.ECDSA(hashes.SHA384() if large else hashes.SHA256())
            self.sign = lambda text: point.sign(text, way)
            self._write(point.public_key())

    def _write(self, public: Any) -> None:  # noqa: ANN401 - one of the library's many kinds
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))


def payload_of(digest: str, name: str, **more: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return what the older versions sign; ``more`` replaces parts."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**critical, **more}, "optional": None}).encode()


def bundle_of(
    signer: Signer,
    digest: str,
    *,
    name: str = "",
    kind: str = "https://in-toto.io/Statement/v1",
    predicate: str = "https://sigstore.dev/cosign/sign/v1",
    payload_type: str = IN_TOTO,
    message: bytes | None = None,
    version: str = BUNDLE,
    signatures: int = 1,
) -> dict[str, Any]:
    """Return the bundle that ``cosign sign --key`` of version 3 writes; arguments spoil it.

    Args:
        signer: whose.
        digest: of what is signed.
        name: of the subject, of which cosign gives none.
        kind: of the statement.
        predicate: what the statement says.
        payload_type: of the envelope.
        message: what the signature covers; None: what DSSE wants.
        version: the media type the bundle gives itself.
        signatures: how often it is signed; one is right.

    """
    subject = {"name": name, "digest": {"sha256": digest.partition(":")[2]}}
    statement = {"_type": kind, "predicateType": predicate, "subject": [subject]}
    payload = json.dumps(statement).encode()
    if message is None:
        header = f"DSSEv1 {len(payload_type)} {payload_type} {len(payload)} "
        message = header.encode() + payload
    made = {"sig": base64.b64encode(signer.sign(message)).decode(), "keyid": ""}
    encoded = base64.b64encode(payload).decode()
    return {
        "mediaType": version,
        "verificationMaterial": {"publicKey": {"hint": "a key"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": encoded,
            "payloadType": payload_type,
            "signatures": [made] * signatures,
        },
    }
