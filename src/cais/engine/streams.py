"""What a container writes and reads: attachments and logs."""

from __future__ import annotations

import contextlib
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cais.engine.errors import PausedError, RestartingError
from cais.engine.logs import LogFormatter, LogReader, LogSelection, read_batch
from cais.errors import ConflictError, InvalidArgumentError, UnsupportedError
from cais.spec.detach_keys import DEFAULT_DETACH_KEYS, parse_detach_keys

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from cais.engine.core import Core
    from cais.engine.table import Container
    from cais.engine.watch import LogChanges

READABLE_DRIVERS = ("", "json-file", "local")


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

    on_end: Callable[[], Awaitable[object]] | None = None
    """Await after the last byte, before the client learns of the end: what it asks then is true."""

    def close(self) -> None:
        """Close ``sock``; the container does not notice."""
        if self.sock is not None:
            self.sock.close()


class Streams:
    """Attach and logs."""

    def __init__(self, core: Core) -> None:
        self._core = core

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
            ConflictError: it is paused, restarting or being removed.
            InvalidArgumentError: malformed detach keys.

        """
        container = self._core.table.resolve(ref)
        keys = parse_detach_keys(detach_keys or "") or DEFAULT_DETACH_KEYS
        _check_attachable(container)
        record = container.record
        is_input = stdin and record.config.open_stdin
        sock = None
        if stream:
            sock = await self._core.shim.client.attach(
                record.id, stdin=is_input, stdout=stdout, stderr=stderr, tty=record.tty
            )
            self._core.announce(container, "attach")
        prefix = None
        if logs:
            selection = LogSelection(stdout=stdout, stderr=stderr, is_framed=not record.tty)
            prefix = self._read(container, selection, follow=False)
        return AttachSession(
            tty=record.tty,
            sock=sock,
            prefix=prefix,
            detach_keys=keys if record.tty and is_input else b"",
            on_detach=lambda: self._core.announce(container, "detach"),
        )

    async def logs(
        self,
        ref: str,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: bool = False,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
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
            since_ns: Unix time in nanoseconds; older lines are left out.
            until_ns: Unix time in nanoseconds; newer lines are left out.
            timestamps: each line begins with its time.
            details: each line begins with the log options' labels.

        Raises:
            InvalidArgumentError: neither stdout nor stderr.
            UnsupportedError: the log driver cannot be read.

        """
        if not (stdout or stderr):
            raise InvalidArgumentError("Bad parameters: you must choose at least one stream")
        container = self._core.table.resolve(ref)
        if container.record.host_config.log_config.type not in READABLE_DRIVERS:
            raise UnsupportedError("configured logging driver does not support reading")
        selection = LogSelection(
            stdout=stdout,
            stderr=stderr,
            tail=tail,
            since_ns=since_ns,
            until_ns=until_ns,
            timestamps=timestamps,
            details=details,
            is_framed=not container.record.tty,
        )
        follow = follow and container.record.state.running
        return container.record.tty, self._read(container, selection, follow=follow)

    async def _read(
        self, container: Container, selection: LogSelection, *, follow: bool
    ) -> AsyncIterator[bytes]:
        path = self._core.paths.log(container.id)
        formatter = LogFormatter(selection)
        reader = await self._core.threads.run(LogReader, path, tail=selection.tail)
        with reader:
            if not follow:
                while output := await self._core.threads.run(read_batch, reader, formatter):
                    yield output
                return
            async with self._log_directory(container) as directory:
                with self._core.watch.follow(directory) as changes:
                    async for output in self._follow(container, reader, formatter, changes):
                        yield output

    @asynccontextmanager
    async def _log_directory(self, container: Container) -> AsyncIterator[str]:
        """Give the directory to watch, which is there once something was logged or is followed."""
        directory = self._core.paths.container(container.id)
        await self._core.threads.run(partial(os.makedirs, directory, 0o710, exist_ok=True))
        try:
            yield directory
        finally:
            if not container.record.state.running:
                with contextlib.suppress(OSError):  # it has a log, or went with the container
                    os.rmdir(directory)  # noqa: PTH106 - one call, too short for a thread

    async def _follow(
        self,
        container: Container,
        reader: LogReader,
        formatter: LogFormatter,
        changes: LogChanges,
    ) -> AsyncIterator[bytes]:
        """Read until the run that goes on now has ended and its last byte was read."""
        ended = container.wait_run_ended()
        ended.add_done_callback(lambda _: changes.wake())
        if not container.record.state.running:
            ended.set_result(None)  # it ended while its log was being opened
        try:
            while not formatter.is_past_end:
                is_last = ended.done()  # before reading: what was written by then is read now
                changes.arm()
                while output := await self._core.threads.run(read_batch, reader, formatter):
                    yield output
                if is_last:
                    return
                if not ended.done():
                    await changes.wait(self._until_s(formatter))
        finally:
            _let_go(ended)

    def _until_s(self, formatter: LogFormatter) -> float | None:
        return formatter.seconds_left(self._core.clock.wall_ns())


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.cancel()


def _check_attachable(container: Container) -> None:
    state = container.record.state
    if state.paused:
        raise PausedError(container.id, "attach")
    if state.restarting:
        raise RestartingError(container.id)
    if state.removing or state.dead:
        raise ConflictError(f"container {container.id} is marked for removal")
