"""D-Bus values as bytes: what a type signature says, little-endian.

Integers, booleans, strings, object paths and signatures, arrays, structures, dictionaries and
variants; no descriptors. Values are Python's own: a structure is a tuple, a dictionary a list of
pairs (its order is kept), an array of bytes ``bytes``, a variant a ``Variant``.

Spec: D-Bus Specification 0.38, "Type System" and "Marshaling (Wire Format)".
"""
# ruff: noqa: ANN401 - the type of a value is what its signature says

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_NUMBERS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGNMENT = {"y": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "g": 1, "v": 1, "(": 8, "{": 8}
_CLOSING = {"(": ")", "{": "}"}
_DEPTH_LIMIT = 32
_ARRAY_LIMIT_BYTES = 1 << 26


class WireError(ValueError):
    """Bytes that do not mean what their signature says, or a signature that means nothing."""


class Variant:
    """A value that carries its own type."""

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: Any) -> None:
        self.signature = signature
        self.value = value

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Variant)
            and self.signature == other.signature
            and self.value == other.value
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Variant({self.signature!r}, {self.value!r})"


def split(signature: str) -> list[str]:
    """Return the complete types of a signature: ``sa(sv)`` has two.

    Raises:
        WireError: it is not a signature.

    """
    found, start = [], 0
    while start < len(signature):
        end = _end_of_type(signature, start, 0)
        found.append(signature[start:end])
        start = end
    return found


def encode(signature: str, values: Sequence[Any]) -> bytes:
    """Return ``values`` as the signature's types, aligned from offset 0."""
    out = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def decode(signature: str, data: bytes) -> list[Any]:
    """Return the values in ``data``, which starts at an offset that is a multiple of eight.

    Raises:
        WireError: too short, or malformed.

    """
    reader = _Reader(data)
    try:
        return [reader.take(kind, 0) for kind in split(signature)]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed D-Bus data: {error}") from None


def pad(out: bytearray, alignment: int) -> None:
    """Append zeros up to a multiple of ``alignment``."""
    out += bytes(-len(out) % alignment)


def _end_of_type(signature: str, start: int, depth: int) -> int:
    if start >= len(signature) or depth > _DEPTH_LIMIT:
        raise WireError(f"invalid D-Bus signature {signature[:64]!r}")
    code = signature[start]
    if code == "a":
        return _end_of_type(signature, start + 1, depth + 1)
    if code in _CLOSING:
        end = start + 1
        while signature[end : end + 1] != _CLOSING[code]:
            end = _end_of_type(signature, end, depth + 1)
        return end + 1
    if code not in _NUMBERS and code not in "bsogv":
        raise WireError(f"invalid D-Bus signature {signature[:64]!r}")
    return start + 1


def _put(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    pad(out, _ALIGNMENT.get(code, 4))
    if code in _NUMBERS:
        out += struct.pack("<" + _NUMBERS[code], value)
    elif code == "b":
        out += struct.pack("<I", bool(value))
    elif code in "sog":
        text = value.encode()
        out += struct.pack("<B" if code == "g" else "<I", len(text)) + text + b"\0"
    elif code == "v":
        _put(out, "g", value.signature)
        _put(out, value.signature, value.value)
    elif code == "a":
        _put_array(out, kind[1:], value)
    else:
        for member, item in zip(split(kind[1:-1]), value, strict=True):
            _put(out, member, item)


def _put_array(out: bytearray, item_kind: str, items: Sequence[Any]) -> None:
    place = len(out)
    out += bytes(4)
    pad(out, _ALIGNMENT.get(item_kind[0], 4))  # not counted, and there without items too
    start = len(out)
    for item in items:
        _put(out, item_kind, item)
    struct.pack_into("<I", out, place, len(out) - start)


class _Reader:
    """A position in received bytes."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, kind: str, depth: int) -> Any:
        if depth > _DEPTH_LIMIT:
            raise WireError("D-Bus data is nested too deeply")
        code = kind[0]
        self._align(code)
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code == "b":
            return bool(self._number("I"))
        if code in "sog":
            return self._text(self._number("B" if code == "g" else "I"))
        if code == "v":
            return self._variant(depth)
        if code == "a":
            return self._array(kind[1:], depth)
        return tuple(self.take(member, depth + 1) for member in split(kind[1:-1]))

    def _variant(self, depth: int) -> Variant:
        signature = self.take("g", depth + 1)
        if len(split(signature)) != 1:
            raise WireError(f"a D-Bus variant of the type {signature[:64]!r}")
        return Variant(signature, self.take(signature, depth + 1))

    def _array(self, kind: str, depth: int) -> Any:
        length = self._number("I")
        self._align(kind[0])
        end = self._offset + length
        if length > _ARRAY_LIMIT_BYTES or end > len(self._data):
            raise WireError("a D-Bus array is longer than its message")
        if kind == "y":
            found = self._data[self._offset : end]
            self._offset = end
            return found
        return list(self._items(kind, end, depth))

    def _items(self, kind: str, end: int, depth: int) -> Iterator[Any]:
        while self._offset < end:
            yield self.take(kind, depth + 1)

    def _align(self, code: str) -> None:
        self._offset += -self._offset % _ALIGNMENT.get(code, 4)

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._offset)
        self._offset += struct.calcsize("<" + code)
        return value

    def _text(self, length: int) -> str:
        text = self._data[self._offset : self._offset + length]
        if len(text) < length:
            raise WireError("a D-Bus string is longer than its message")
        self._offset += length + 1
        return text.decode()


__all__ = ["Variant", "WireError", "decode", "encode", "pad", "split"]
