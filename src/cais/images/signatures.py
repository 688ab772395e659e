"""Signatures of images as cosign makes them with a key.

What is signed is a small JSON document, the payload, that names the digest of a manifest or index.
It is a layer of an artifact in the image's own repository, the signature an annotation of that
layer. The artifact is found under the tag ``sha256-<hex>.sig``, or as a referrer of the image. A
registry can hide a signature and offer any number of wrong ones, but make none.

The library for keys is imported with the first signature: 40 ms and 12 MB.

Spec: cosign, specs/SIGNATURE_SPEC.md ("simple signing"); OCI distribution-spec 1.1, referrers.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cais.errors import CaisError, InvalidArgumentError, UnsupportedError
from cais.registry.discovery import referrers
from cais.registry.errors import UnknownToRegistryError
from cais.spec import strict_json
from cais.spec.conversion import convert
from cais.spec.digest import parse_digest
from cais.spec.image import Manifest, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from cais.registry.repository import Repository
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor

_PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
_ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
_ANNOTATION = "dev.cosignproject.cosign/signature"
_KIND = "cosign container image signature"
_PAYLOAD_LIMIT_BYTES = 1024 * 1024
_MOST = 100
"""Signatures looked at: each costs a request."""


class Key(NamedTuple):
    """A public key that was read from a file."""

    path: str
    public: PublicKeyTypes


class _Identity(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="docker-reference", default="")


class _Image(msgspec.Struct):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct):
    image: _Image
    type: str
    identity: _Identity = _Identity()


class _Payload(msgspec.Struct):
    critical: _Critical


def load_key(where: str, path: str) -> Key:
    """Read a public key: ECDSA, RSA or Ed25519, in PEM.

    Args:
        where: names whoever wants the key, in errors.
        path: of the file.

    Raises:
        InvalidArgumentError: it cannot be read, or is no such key.

    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidArgumentError(f"{where}: key {path}: {exc}") from exc
    kinds = (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)
    if not isinstance(public, kinds):
        raise InvalidArgumentError(f"{where}: key {path}: neither ECDSA, RSA nor Ed25519")
    return Key(path, public)


def is_signed(
    source: Repository, digest: Digest, keys: Sequence[Key], name: str | None = None
) -> bool:
    """Whether one of the keys signed a manifest.

    Args:
        source: the repository it is in.
        digest: of the manifest or index.
        keys: any one of them will do.
        name: the repository the signature must have been made for, in full; None: any.

    Raises:
        RegistryError, RegistryUnreachableError: the registry does not say what it has.

    Blocks: for a few requests.

    """
    return any(
        _names(payload, digest, name) and any(_verifies(key, payload, made) for key in keys)
        for payload, made in _signatures(source, digest)
    )


def _signatures(source: Repository, digest: Digest) -> Iterator[tuple[bytes, bytes]]:
    """Yield (payload, signature) of what a registry offers; what is malformed is passed over."""
    looked_at = 0
    for layer in _layers(source, digest):
        encoded = (layer.annotations or {}).get(_ANNOTATION, "")
        if layer.media_type != _PAYLOAD_TYPE or not encoded:
            continue
        looked_at += 1
        if looked_at > _MOST:
            return
        with contextlib.suppress(CaisError, binascii.Error):
            made = base64.b64decode(encoded, validate=True)
            yield source.read_blob(parse_digest(layer.digest), _PAYLOAD_LIMIT_BYTES), made


def _layers(source: Repository, digest: Digest) -> Iterator[Descriptor]:
    """Yield the layers of the artifacts that may hold signatures."""
    yield from _layers_of(source, f"{digest.replace(':', '-')}.sig")
    kinds = {_ARTIFACT_TYPE, _PAYLOAD_TYPE}
    found = [one for one in referrers(source, digest) if one.artifact_type in kinds]
    for artifact in found[:_MOST]:
        yield from _layers_of(source, artifact.digest)


def _layers_of(source: Repository, reference: str) -> list[Descriptor]:
    try:
        fetched = source.get_manifest(reference)
        return decode(fetched.content, Manifest, f"signatures {reference[:100]}").layers
    except (UnknownToRegistryError, InvalidArgumentError):
        return []


def _names(payload: bytes, digest: Digest, name: str | None) -> bool:
    """Whether a payload is about this image."""
    try:
        document = convert(strict_json.loads(payload, _PAYLOAD_LIMIT_BYTES), _Payload)
    except (strict_json.InvalidJsonError, msgspec.ValidationError):
        return False
    critical = document.critical
    is_for_name = name is None or critical.identity.name.partition("@")[0] == name
    return critical.type == _KIND and critical.image.digest == digest and is_for_name


def _verifies(key: Key, payload: bytes, made: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    public = key.public
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(made, payload, ec.ECDSA(SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(made, payload, padding.PKCS1v15(), SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(made, payload)
        else:
            raise UnsupportedError(f"key {key.path} is of no supported kind")
    except InvalidSignature:
        return False
    return True
