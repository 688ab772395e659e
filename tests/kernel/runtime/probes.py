"""Programs of one system call, made by hand: busybox cannot make any call with any argument.

A probe ends with the errno of its call as exit status, 0 if it succeeded.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BASE = 0x400000
_EXIT_GROUP = {64: 231, 32: 252}
# Opcodes of "load this constant" for the arguments' registers.
_REGISTERS_64 = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
_REGISTERS_32 = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf", b"\xbd")


def write_probe(path: Path, number: int, *arguments: int, bits: int = 64) -> None:
    """Write a program for x86 with 64 or 32 bits."""
    code = _code_64(number, arguments) if bits == 64 else _code_32(number, arguments)
    path.write_bytes(_elf(code, bits))
    path.chmod(0o755)


def _code_64(number: int, arguments: tuple[int, ...]) -> bytes:
    loads = zip(_REGISTERS_64, arguments, strict=False)
    code = b"".join(opcode + struct.pack("<Q", value % 2**64) for opcode, value in loads)
    code += b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax, number; syscall
    code += b"\xf7\xd8\x89\xc7"  # neg eax; mov edi, eax
    return code + b"\xb8" + struct.pack("<I", _EXIT_GROUP[64]) + b"\x0f\x05"


def _code_32(number: int, arguments: tuple[int, ...]) -> bytes:
    loads = zip(_REGISTERS_32, arguments, strict=False)
    code = b"".join(opcode + struct.pack("<I", value % 2**32) for opcode, value in loads)
    code += b"\xb8" + struct.pack("<I", number) + b"\xcd\x80"  # mov eax, number; int 0x80
    code += b"\xf7\xd8\x89\xc3"  # neg eax; mov ebx, eax
    return code + b"\xb8" + struct.pack("<I", _EXIT_GROUP[32]) + b"\xcd\x80"


def _elf(code: bytes, bits: int) -> bytes:
    """Return an executable with one segment, readable and executable, entered at its code."""
    wide = bits == 64
    header_bytes, entry_bytes = (64, 56) if wide else (52, 32)
    start = header_bytes + entry_bytes
    size = start + len(code)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH",
        *(2, 62 if wide else 3, 1, _BASE + start, header_bytes, 0, 0),
        *(header_bytes, entry_bytes, 1, 0, 0, 0),
    )
    if wide:
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    else:
        segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    return header + segment + code
