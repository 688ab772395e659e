"""Signals as plain numbers: the standard module builds an enum at import, 4 ms of a command.

What is here is ``signal``'s own C code under its own names.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the checker's stubs do not have it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import (
        NSIG,
        SIG_BLOCK,
        SIG_SETMASK,
        SIGKILL,
        SIGTERM,
        SIGWINCH,
        pidfd_send_signal,
        pthread_sigmask,
        set_wakeup_fd,
        signal,
        valid_signals,
    )
else:
    from _signal import (
        NSIG,
        SIG_BLOCK,
        SIG_SETMASK,
        SIGKILL,
        SIGTERM,
        SIGWINCH,
        pidfd_send_signal,
        pthread_sigmask,
        set_wakeup_fd,
        signal,
        valid_signals,
    )

__all__ = [
    "NSIG",
    "SIGKILL",
    "SIGTERM",
    "SIGWINCH",
    "SIG_BLOCK",
    "SIG_SETMASK",
    "find_number",
    "pidfd_send_signal",
    "pthread_sigmask",
    "set_wakeup_fd",
    "signal",
    "valid_signals",
]


def find_number(name: str) -> int | None:
    """Return the number of ``SIGTERM``; None for what is no signal's name."""
    if not name.startswith("SIG") or name.startswith("SIG_"):
        return None
    found = getattr(_signal, name, None)
    return found if isinstance(found, int) else None
