"""The shim's side of the protocol: who may connect, and which request does what."""

from __future__ import annotations

import contextlib
import errno
import os

from cais.errors import ConflictError, UnsupportedError
from cais.shim import protocol
from cais.shim.connection import Connection
from cais.shim.loop import READ
from cais.shim.netns import Owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from cais.shim.connection import Request
    from cais.shim.containers import Containers
    from cais.shim.fields import Fields
    from cais.shim.loop import Loop
    from cais.shim.netns import Home
    from cais.shim.protocol import Document

    Verb = Callable[["Request"], None]

MAX_CONNECTIONS = 256
_PAGE = 50  # statuses or exits in a packet: at most about 40 KiB


class Server:
    """Listens on ``path`` and serves ``containers``."""

    def __init__(
        self,
        loop: Loop,
        path: str,
        *,
        home: Home,
        report: Callable[[BaseException], None],
        shutdown: Callable[[], None],
    ) -> None:
        """Listen; requests are served once ``containers`` is set. ``shutdown`` ends the program."""
        self.containers: Containers
        self._loop = loop
        self._home = home
        self._report = report
        self._shutdown = shutdown
        self._connections: list[Connection] = []
        self._listener = protocol.listen(path)
        self._reserve_fd = _open_reserve()
        self._own_pid_namespace = os.stat("/proc/self/ns/pid").st_ino
        self._verbs: dict[str, Verb] = {
            "hello": self._hello,
            "start": self._start,
            "exec": self._exec,
            "attach": self._attach,
            "detach": self._detach,
            "resize": self._resize,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "checkpoint": self._checkpoint,
            "ack": self._ack,
            "adopt": self._adopt,
            "netns": self._netns,
            "netlink": self._netlink,
            "shutdown": self._end,
        }
        loop.watch(self._listener.fileno(), READ, self._accept, keep=True)

    def tell(self, event: Document) -> None:
        """Send ``event`` to every connection that has said hello."""
        packet = protocol.encode(event)
        for connection in self._connections[:]:
            if connection.greeted:
                connection.send(packet)

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._connections.remove(connection)

    def serve(self, request: Request) -> None:
        """Carry out one request; its answer may come later."""
        verb = self._verbs.get(request.verb)
        if verb is None:
            raise UnsupportedError(f"no such request: {request.verb}")
        verb(request)

    def report(self, error: BaseException) -> None:
        """Log a fault of ours."""
        self._report(error)

    def _accept(self, _events: int) -> None:
        try:
            channel, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno in {errno.EMFILE, errno.ENFILE}:
                self._turn_away()
                return
            raise
        channel.settimeout(0)
        if len(self._connections) < MAX_CONNECTIONS and self._is_trusted(channel):
            self._connections.append(Connection(self._loop, channel, self))
        else:
            channel.close()

    def _is_trusted(self, channel: socket.socket) -> bool:
        """Tell whether the peer is the engine's user, outside of every container.

        The socket lies in a directory no container sees; this holds where one was let in.
        """
        pid, uid, _ = protocol.peer_credentials(channel)
        if uid != os.geteuid() or pid == 0:
            return False
        try:
            return os.stat(f"/proc/{pid}/ns/pid").st_ino == self._own_pid_namespace
        except OSError:
            return False

    def _turn_away(self) -> None:
        """Refuse a client for which no descriptor is left; else the listener would spin."""
        os.close(self._reserve_fd)
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        self._reserve_fd = _open_reserve()

    def _hello(self, request: Request) -> None:
        version = request.fields.number("version")
        if version != protocol.VERSION:
            raise UnsupportedError(
                f"this shim speaks version {protocol.VERSION} of the protocol, not {version}"
            )
        request.connection.greeted = True
        for name, documents in (
            ("containers", self.containers.statuses()),
            ("exits", self.containers.exits),
        ):
            for start in range(0, len(documents), _PAGE):
                request.part(**{name: documents[start : start + _PAGE]})
        request.ok(version=protocol.VERSION, pid=os.getpid(), containers=[], exits=[])

    def _start(self, request: Request) -> None:
        self.containers.start(request.fields, request)

    def _exec(self, request: Request) -> None:
        self.containers.exec(request.fields, request)

    def _attach(self, request: Request) -> None:
        channel = request.take_socket()
        try:
            self.containers.attach(request.fields, channel)
        except BaseException:
            channel.close()
            raise
        request.ok()

    def _detach(self, request: Request) -> None:
        self.containers.detach(request.fields)
        request.ok()

    def _resize(self, request: Request) -> None:
        self.containers.changes.resize(request.fields)
        request.ok()

    def _kill(self, request: Request) -> None:
        self.containers.changes.kill(request.fields, request)

    def _pause(self, request: Request) -> None:
        self.containers.changes.pause(request.fields, request)

    def _resume(self, request: Request) -> None:
        self.containers.changes.resume(request.fields, request)

    def _update(self, request: Request) -> None:
        self.containers.changes.update(request.fields, request)

    def _checkpoint(self, request: Request) -> None:
        self.containers.changes.checkpoint(request.fields, request)

    def _ack(self, request: Request) -> None:
        self.containers.ack(request.fields)
        request.ok()

    def _adopt(self, request: Request) -> None:
        self.containers.adopt(request.fields)
        request.ok()

    def _netns(self, request: Request) -> None:
        owner = request.fields.nested("owner")
        request.ok_with(
            self._home.create(request.fields.path("path"), None if owner is None else _owner(owner))
        )

    def _netlink(self, request: Request) -> None:
        request.ok_with([self._home.open_netlink_at(request.fields.path("path"))])

    def _end(self, request: Request) -> None:
        if not self.containers.is_empty:
            raise ConflictError("the shim still holds containers")
        request.ok()
        self._shutdown()


def _owner(fields: Fields) -> Owner:
    source = fields.optional_path("source")
    maps = ([], []) if source else (fields.identity_map("uid"), fields.identity_map("gid"))
    return Owner(fields.path("path"), source, maps)


def _open_reserve() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
