"""Digests: the names of bytes.

A digest names a blob (its bytes), a diff id names an uncompressed layer, a chain id names a layer
on top of all layers below it, an image id names an image's configuration. All have the same form,
``sha256:`` and 64 lower-case hexadecimal digits; the types keep them apart.

Spec: OCI image-spec 1.1, descriptor.md "Digests"; config.md "Layer ChainID".
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NewType

from cais.errors import DataLossError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Digest = NewType("Digest", str)
DiffId = NewType("DiffId", Digest)
ChainId = NewType("ChainId", Digest)
ImageId = NewType("ImageId", Digest)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GRAMMAR = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")


class InvalidDigestError(InvalidArgumentError):
    """The text is not a digest, or one by an algorithm other than sha256."""


class UnsupportedDigestError(InvalidDigestError):
    """A digest by an algorithm other than sha256, which the text names."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"unsupported digest algorithm: {algorithm[:32]}")


class DigestMismatchError(DataLossError):
    """Bytes are not those their digest names; ``expected`` and ``actual`` are digests."""

    def __init__(self, what: str, expected: Digest, actual: Digest) -> None:
        super().__init__(f"{what}: digest is {actual}, expected {expected}")
        self.expected = expected
        self.actual = actual


def parse_digest(text: str) -> Digest:
    """Read ``sha256:<64 lower-case hexadecimal digits>``, the one algorithm supported.

    Raises:
        UnsupportedDigestError: by another one; the specification asks for sha512 if possible.
        InvalidDigestError: no digest.

    """
    if _DIGEST.fullmatch(text):
        return Digest(text)
    if _GRAMMAR.fullmatch(text) and not text.startswith("sha256:"):
        raise UnsupportedDigestError(text.partition(":")[0])
    raise InvalidDigestError(f"invalid digest {text[:80]!r}")


def digest_of(content: bytes) -> Digest:
    """Return the digest of ``content``."""
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def encoded(digest: str) -> str:
    """Return the hexadecimal part."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """Return the first twelve hexadecimal digits, as Docker shows ids."""
    return digest.removeprefix("sha256:")[:12]


def chain_ids(diff_ids: Iterable[DiffId]) -> Iterator[ChainId]:
    """Yield the chain id of each layer, lowest first.

    Spec: OCI image-spec 1.1, config.md: "ChainID(L0|...|Ln-1|Ln) =
    Digest(ChainID(L0|...|Ln-1) + ' ' + DiffID(Ln))".
    """
    chain = ""
    for diff_id in diff_ids:
        chain = digest_of(f"{chain} {diff_id}".encode()) if chain else diff_id
        yield ChainId(Digest(chain))


def chain_id(diff_ids: Iterable[DiffId]) -> ChainId | None:
    """Return the chain id of the topmost layer; None when there is no layer."""
    chain = None
    for chain in chain_ids(diff_ids):  # noqa: B007 - the last one counts
        pass
    return chain
