"""How a container's record is written down: JSON, compressed against what all of them share.

Nine tenths of a record are the names of its fields. A thousand containers of one image shall cost
a few megabytes at most, so zlib is given a typical record to refer to (``data/document.zdict``).
That file is part of the format and never changes; a better one would get a name of its own. A
document that begins with a brace is plain JSON, which is read all the same.
"""

from __future__ import annotations

import zlib
from importlib.resources import files

import msgspec

from cais.engine.records import ContainerRecord
from cais.errors import DataLossError
from cais.spec.conversion import decoder

_DICTIONARY = files("cais.engine").joinpath("data/document.zdict").read_bytes()
_PLAIN = b"{"
_LEVEL = 6
_LIMIT_BYTES = 64 * 1024 * 1024
_encode = msgspec.json.Encoder().encode
_decode = decoder(ContainerRecord)


def pack_record(record: ContainerRecord) -> bytes:
    """Return the stored form of a record."""
    packer = zlib.compressobj(_LEVEL, zdict=_DICTIONARY)
    return packer.compress(_encode(record)) + packer.flush()


def unpack_record(document: bytes) -> ContainerRecord:
    """Read what ``pack_record`` wrote.

    Raises:
        DataLossError: it is damaged.

    """
    try:
        return _decode(document if document[:1] == _PLAIN else _unpack(document))
    except (msgspec.DecodeError, zlib.error, TypeError, ValueError) as exc:
        raise DataLossError(f"its document cannot be read: {exc}") from exc


def _unpack(document: bytes) -> bytes:
    unpacker = zlib.decompressobj(zdict=_DICTIONARY)
    text = unpacker.decompress(document, _LIMIT_BYTES)
    if not unpacker.eof:
        raise ValueError("it is cut short")
    return text
