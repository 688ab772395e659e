"""What a container writes and reads: attachments and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable


@dataclass(slots=True)
class AttachSession:
    """One client on a container's or exec's streams. The caller owns it and calls ``close``.

    First everything of ``prefix`` goes to the client, then everything ``sock`` gives until its
    end of file. What the client sends goes to ``sock`` as it is; the client's half-close is
    passed on by ``sock.shutdown(SHUT_WR)``.
    """

    tty: bool
    sock: socket.socket | None
    """Non-blocking; raw bytes with a terminal, stdcopy frames without. None: logs only."""

    prefix: AsyncIterator[bytes] | None = None
    detach_keys: bytes = b""
    """What, read from the client, ends the attachment (``detach.DetachScanner``); b"": nothing."""

    on_detach: Callable[[], None] | None = None
    """Call when the detach keys were seen: the event."""

    def close(self) -> None:
        """Close ``sock``; the container does not notice."""
        if self.sock is not None:
            self.sock.close()


class Streams:
    """Attach and logs."""

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        stream: bool = False,
        logs: bool = False,
        detach_keys: str | None = None,
    ) -> AttachSession:
        """Attach to a container that runs or will be started.

        Raises:
            ConflictError: it is paused or restarting.
            InvalidArgumentError: malformed detach keys.

        """
        raise NotImplementedError

    async def logs(
        self,
        ref: str,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
        details: bool = False,
    ) -> tuple[bool, AsyncIterator[bytes]]:
        """Read what a container wrote; return whether it has a terminal, and the bytes.

        The bytes are stdcopy frames, or raw with a terminal. Close the iterator (``aclose``)
        to stop following; it ends by itself when the container does.

        Args:
            ref: name or id.
            stdout: this stream.
            stderr: this stream.
            follow: go on as more is written, until the container ends.
            tail: only so many of the last lines; None for all.
            since: Unix time in seconds; older lines are left out.
            until: Unix time in seconds; newer lines are left out.
            timestamps: each line begins with its time.
            details: each line begins with the log options' labels.

        Raises:
            InvalidArgumentError: neither stdout nor stderr.
            UnsupportedError: the log driver cannot be read.

        """
        raise NotImplementedError
