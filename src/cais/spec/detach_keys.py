r"""Detach keys: what a user types to leave a terminal without ending its program.

Spec: ``--detach-keys`` of Docker: keys with commas between them, each one ASCII character or
``ctrl-`` and one of ``a`` to ``z``, ``@``, ``[``, ``\``, ``]``, ``^`` and ``_``.
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

DEFAULT_DETACH_KEYS = b"\x10\x11"
"""ctrl-p, ctrl-q."""

_CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse_detach_keys(text: str) -> bytes:
    """Turn ``ctrl-p,ctrl-q`` or ``a,b`` into the bytes a terminal sends for it; ``b""`` for none.

    Raises:
        InvalidArgumentError: Docker's text, naming the key.

    """
    return bytes(_parse_key(key) for key in text.split(",")) if text else b""


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    control = key.removeprefix("ctrl-")
    if control != key and len(control) == 1 and control in _CONTROLS:
        return _CONTROLS.index(control)
    raise InvalidArgumentError(f"Invalid detach keys ({key}) provided: Unknown character: '{key}'")


class DetachScanner:
    """Looks for the keys in what a user types; holds back a possible beginning of them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the keys were seen (then nothing follows)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = int(byte == self._keys[0])
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False
