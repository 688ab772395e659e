"""Public keys in files, and whether one of them made a signature.

The library for keys is imported with the first one: 40 ms and 12 MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cais.errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.hazmat.primitives.hashes import HashAlgorithm


class Key(NamedTuple):
    """A public key that was read from a file."""

    path: str
    public: PublicKeyTypes


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


def is_made_by(key: Key, message: bytes, signature: bytes) -> bool:
    """Whether a key signed a message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    public = key.public
    if isinstance(public, ec.EllipticCurvePublicKey):
        return any(_is_ecdsa(public, message, signature, each) for each in _hashes(public))
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        else:
            raise UnsupportedError(f"key {key.path} is of no supported kind")
    except InvalidSignature:
        return False
    return True


def _hashes(public: EllipticCurvePublicKey) -> Iterator[HashAlgorithm]:
    """Yield what cosign hashes with: always SHA-256 once, by the curve in bundles."""
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    yield SHA256()
    if public.key_size > 256:
        yield SHA384() if public.key_size <= 384 else SHA512()


def _is_ecdsa(
    public: EllipticCurvePublicKey, message: bytes, signature: bytes, kind: HashAlgorithm
) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        public.verify(signature, message, ec.ECDSA(kind))
    except InvalidSignature:
        return False
    return True
