"""Signals as users write them."""

from __future__ import annotations

import signal

from cais.errors import InvalidArgumentError

DEFAULT_STOP_SIGNAL = int(signal.SIGTERM)
_NAMES = {
    **{one.name.removeprefix("SIG"): int(one) for one in signal.Signals},
    "CLD": int(signal.SIGCHLD),
    "POLL": int(signal.SIGIO),
}
_HIGHEST = 64


class InvalidSignalError(InvalidArgumentError):
    """No such signal."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid signal: {text}")


def parse_signal(text: str) -> int:
    """Return the number of ``15``, ``TERM``, ``SIGTERM``, ``rtmin+3``.

    Raises:
        InvalidSignalError: no such signal.

    """
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else 0
        if not 0 < number <= _HIGHEST:
            raise InvalidSignalError(text)
        return number
    name = text.upper().removeprefix("SIG")
    if name in _NAMES:
        return _NAMES[name]
    for base, sign in (("RTMIN+", 1), ("RTMAX-", -1)):
        offset = name.removeprefix(base)
        if offset != name and offset.isascii() and offset.isdigit() and len(offset) < 3:
            number = _NAMES[base[:-1]] + sign * int(offset)
            if _NAMES["RTMIN"] <= number <= _NAMES["RTMAX"]:
                return number
    raise InvalidSignalError(text)
