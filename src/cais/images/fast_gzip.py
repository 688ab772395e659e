"""gzip's decoder for those who unpack: ISA-L's, in less than half of zlib's time.

It is assembler that few have tried to break, so it is for confined workers (``unpacker``) alone:
what the daemon decompresses itself goes through zlib. There are builds for x86-64 and aarch64.

Import-light: the warden loads it.

Spec: RFC 1952.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.images.compression import Decoder

try:
    from isal import igzip_lib
except ImportError:
    HAS_ISAL = False
else:
    HAS_ISAL = True


class _Igzip:
    """ISA-L's decoder; its failures are zlib's, whose checks it makes too."""

    def __init__(self) -> None:
        self._decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return self._decoder.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            return self._decoder.decompress(data, max_length)
        except igzip_lib.IsalError as exc:  # type: ignore[misc]
            raise zlib.error(str(exc)) from exc


FAST_GZIP: Callable[[], Decoder] | None = _Igzip if HAS_ISAL else None
"""For ``open_decompressed``."""
