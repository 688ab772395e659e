"""The life of the daemon: lock, listen, serve, reload, end.

Order at the start: the pid file's lock, the sockets (early clients wait in their backlog), the
engine, then ``READY=1``. At the end: sockets, requests, engine, pid file; containers go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Self

from cais.api.application import common_headers, make_router
from cais.api.daemon_log import set_level
from cais.api.listeners import UnixAddress, UnixListener, find_group, open_tcp
from cais.errors import CaisError, ConflictError, InvalidArgumentError
from cais.http.descriptors import raise_descriptor_limit
from cais.http.server import DEFAULT_MAX_CONNECTIONS, Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from ssl import SSLContext

    from cais.api.listeners import TcpAddress
    from cais.api.options import DaemonOptions
    from cais.engine.engine import Engine

log = logging.getLogger(__name__)

_MAX_CONNECTIONS_SHARE = 0.5
"""Of the descriptors the daemon may have; the rest is for containers and files."""


class PidFile:
    """Holds the daemon's pid, and a lock on it for as long as the process lives."""

    def __init__(self, path: Path) -> None:
        """Lock and write it.

        Raises:
            ConflictError: another daemon holds it.

        """
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise ConflictError(
                f"ensure caisd is not running or delete {path}:"
                f" process with PID {pid} is still running"
            ) from exc
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Remove the file, then give up the lock."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


class Daemon:
    """One daemon from its start to its end; an asynchronous context manager."""

    def __init__(self, options: DaemonOptions) -> None:
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._engine: Engine | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        _notify("STOPPING=1")
        await self._stack.aclose()

    async def start(self, open_engine: Callable[[DaemonOptions], Awaitable[Engine]]) -> None:
        """Take the locks and sockets, open the engine, and begin to serve.

        Raises:
            CaisError: the daemon cannot run with these options on this host now.

        """
        options = self._options
        make_directory(options.exec_root, 0o711)
        make_directory(options.data_root, 0o710)
        self._stack.callback(PidFile(options.pidfile).close)
        opened = [self._open(host) for host in options.hosts]
        engine = self._engine = await open_engine(options)
        self._stack.push_async_callback(engine.close)
        limit = min(DEFAULT_MAX_CONNECTIONS, int(raise_descriptor_limit() * _MAX_CONNECTIONS_SHARE))
        router = make_router(engine, experimental=options.experimental)
        server = Server(router, common_headers(experimental=options.experimental), limit)
        self._stack.push_async_callback(server.close, options.shutdown_timeout_s)
        for host, (sock, context) in zip(options.hosts, opened, strict=True):
            server.listen(sock, context)
            log.info("API listen on %s", host)
        log.info("Daemon has completed initialization")
        gc.collect()
        gc.freeze()
        _notify(f"READY=1\nMAINPID={os.getpid()}")

    async def run(self, reload: Callable[[], DaemonOptions]) -> None:
        """Serve until a signal asks for the end; SIGHUP reads the configuration again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload, reload)
        await self._stopping.wait()

    def _open(self, host: UnixAddress | TcpAddress) -> tuple[socket.socket, SSLContext | None]:
        """Listen on one address; a TCP one only for clients whose certificate is verified."""
        if isinstance(host, UnixAddress):
            gid = find_group(self._options.group) if self._options.group else -1
            listener = UnixListener(host, gid)
            self._stack.callback(listener.close)
            return listener.sock, None
        if self._options.tls is None:
            raise InvalidArgumentError(
                f"{host}: serving the API over TCP without verifying the clients' certificates"
                " is refused: use --tlsverify with --tlscacert, --tlscert and --tlskey"
            )
        from cais.http.tls import make_context

        tls = self._options.tls
        context = make_context(tls.certificate, tls.key, tls.authority)
        sock = open_tcp(host)
        self._stack.callback(sock.close)
        return sock, context

    def _stop(self, number: int) -> None:
        log.info("Processing signal '%s'", signal.Signals(number).name)
        self._stopping.set()

    def _reload(self, reload: Callable[[], DaemonOptions]) -> None:
        try:
            options = reload()
        except CaisError as exc:
            log.error("reload: %s", exc)  # noqa: TRY400 - the text says it all
            return
        set_level(options.log_level)
        if self._engine is not None:
            self._engine.configure_runtimes(options.runtimes, options.default_runtime)
        log.info("Reloaded configuration: debug, log-level and runtimes are in effect")


def make_directory(path: Path, mode: int) -> None:
    """Ensure a directory whose mode is exactly ``mode`` (SECURITY.md A29)."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)


def _notify(state: str) -> None:
    """Tell systemd, if it started us. Spec: sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(state.encode())
