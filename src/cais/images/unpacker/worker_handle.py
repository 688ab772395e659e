"""The daemon's end of one worker's line: give it a layer, hear of it, get rid of it."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

from cais import errors
from cais.errors import DeadlineError, InternalError
from cais.images.unpack import Unpacked
from cais.images.unpacker.detached import HARMLESS, READ_ONLY, open_read_only, open_tree, warn
from cais.images.unpacker.messages import DESCRIPTOR_LIMIT, LineClosedError, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.images.unpack import Limits

log = logging.getLogger(__name__)

_ENDING_S = 30.0
"""How long a killed process may take: one in the middle of a disk's write cannot die before."""


class Worker:
    """One worker. One thread at a time may give it work; any may kill it."""

    def __init__(self, line: socket.socket, reins: socket.socket, stall_s: float) -> None:
        self._line = line
        self._reins = reins
        self._stall_s = stall_s
        line.settimeout(stall_s)

    def unpack(
        self,
        archive: int,
        root: str,
        open_lowers: Callable[[], Sequence[str]] | None,
        *,
        limits: Limits,
        is_verified: bool,
        report: Callable[[int], None],
    ) -> Unpacked:
        """Have one layer unpacked.

        Args:
            archive: descriptor of a regular file, at its start. Borrowed.
            root: the directory to fill, on the host.
            open_lowers: gives the directories below, nearest first, when the layer needs them;
                may block, or raise. None: there are none.
            limits: see ``unpack``.
            is_verified: see ``unpack``.
            report: told how many bytes of the archive were read.

        Raises:
            InvalidArgumentError, ExhaustedError, InternalError: as ``unpack``; or the worker died.
            DeadlineError: it stands still.
            CaisError: as ``open_lowers``.

        After any failure the worker must be destroyed.

        """
        with contextlib.ExitStack() as stack:
            try:
                fds = [open_read_only(archive, stack), open_tree(root, HARMLESS, stack)]
                job = {
                    "limits": [*limits],
                    "is_verified": is_verified,
                    "has_lowers": open_lowers is not None,
                }
                send(self._line, job, fds)
                return self._converse(open_lowers, report)
            except LineClosedError as exc:
                raise InternalError(f"the unpacking worker {self._epitaph()}") from exc
            except TimeoutError as exc:
                raise DeadlineError(
                    f"the unpacking worker made no progress for {self._stall_s:g} s"
                ) from exc

    def kill(self) -> None:
        """End the worker at once; its conversation, if any, fails. Any thread, any number."""
        with contextlib.suppress(OSError):
            self._reins.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Let an idle worker end by itself."""
        self._line.close()
        self._reins.close()

    def destroy(self) -> None:
        """End the worker and return when it is dead: it writes nothing any more."""
        self.kill()
        self._line.close()
        ending = self._epitaph()
        self._reins.close()
        if not ending:
            log.error("an unpacking worker outlives its kill by %s s", _ENDING_S)

    def _converse(
        self,
        open_lowers: Callable[[], Sequence[str]] | None,
        report: Callable[[int], None],
    ) -> Unpacked:
        while True:
            message, _ = receive(self._line)
            if "read" in message:
                report(_number(message["read"]))
            elif "lowers" in message and open_lowers is not None:
                self._send_lowers(open_lowers())
                open_lowers = None
            elif "refused" in message:
                warn(_texts(message["refused"]))
            elif "error" in message:
                raise _failure(message["error"])
            else:
                return _unpacked(message)

    def _send_lowers(self, paths: Sequence[str]) -> None:
        for first in range(0, len(paths), DESCRIPTOR_LIMIT):
            end = first + DESCRIPTOR_LIMIT
            with contextlib.ExitStack() as stack:
                fds = [open_tree(path, READ_ONLY, stack) for path in paths[first:end]]
                send(self._line, {"more": end < len(paths)}, fds)

    def _epitaph(self) -> str:
        """Return how the worker ended; "" when it has not."""
        self._reins.settimeout(_ENDING_S)
        try:
            word, _, detail = self._reins.recv(4096).decode(errors="replace").partition(" ")
        except OSError:
            return ""
        if word == "killed":
            names = {str(number.value): number.name for number in signal.Signals}
            return f"was killed by {names.get(detail, detail)}"
        return f"{word} {detail}".strip() if word else "is gone, with its warden"


def _failure(described: object) -> errors.CaisError:
    if isinstance(described, dict):
        kind = getattr(errors, str(described.get("kind")), None)
        if isinstance(kind, type) and issubclass(kind, errors.CaisError):
            return kind(str(described.get("message")))
    return InternalError("the unpacking worker does not keep to the protocol")


def _unpacked(message: dict[str, Any]) -> Unpacked:
    sha256, size, has_root = (message.get(field) for field in Unpacked._fields)
    if not isinstance(sha256, str) or not isinstance(has_root, bool):
        raise InternalError("the unpacking worker does not keep to the protocol")
    return Unpacked(sha256, _number(size), has_root)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise InternalError("the unpacking worker does not keep to the protocol")
    return [str(one) for one in value]


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise InternalError("the unpacking worker does not keep to the protocol")
    return value
