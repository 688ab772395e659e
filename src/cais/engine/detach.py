"""Detach keys: what a client types to leave a terminal without ending its program."""

from __future__ import annotations

from cais.errors import InvalidArgumentError

DEFAULT_DETACH_KEYS = b"\x10\x11"
"""ctrl-p, ctrl-q."""

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """Turn ``ctrl-p,ctrl-q`` or ``a,b`` into the bytes a terminal sends for it.

    Raises:
        InvalidArgumentError: Docker's text, naming the key.

    """
    return bytes(_parse_key(key) for key in text.split(",")) if text else b""


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    control = key.removeprefix("ctrl-")
    if control != key and len(control) == 1:
        if control in _CONTROL:
            return _CONTROL[control]
        if "a" <= control <= "z":
            return ord(control) - ord("a") + 1
    raise InvalidArgumentError(f"Invalid detach keys ({key}) provided: Unknown character: '{key}'")


class DetachScanner:
    """Looks for the keys in what a client types; holds back a possible beginning of them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the keys were seen (then nothing follows)."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out), False
