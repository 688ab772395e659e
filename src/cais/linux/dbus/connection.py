"""A D-Bus connection over a unix socket: authenticate, call, wait for signals.

Who connects is told by the kernel (EXTERNAL). systemd listens on a socket of its own, where
nothing stands in between and only root may speak; elsewhere there is a bus, which
wants a greeting first and signals ordered.

Spec: D-Bus Specification 0.38, "Authentication Protocol", "Message Bus Specification".
"""

from __future__ import annotations

import socket
import time

from cais.errors import CaisError, UnavailableError
from cais.linux import namespaces
from cais.linux.dbus import messages
from cais.linux.dbus.messages import Message, Target
from cais.linux.dbus.wire import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

_BUS = Target("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_LINE_LIMIT_BYTES = 1024


class DbusError(CaisError):
    """The peer refused a call. ``name`` is its error's: ``org.freedesktop.systemd1.UnitExists``."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class Connection:
    """An authenticated connection; a context manager that closes it.

    Every wait ends at ``timeout_s`` after the start of its call, with UnavailableError.
    """

    __slots__ = ("_pending", "_serial", "_signals", "_socket", "timeout_s")

    def __init__(self, path: str, *, is_bus: bool, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._serial = 0
        self._pending = b""
        self._signals: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
            self._authenticate()
            if is_bus:
                self.call(_BUS, "Hello")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(
        self, target: Target, member: str, signature: str = "", values: Sequence[Any] = ()
    ) -> list[Any]:
        """Call a method and return what it answers. Blocks.

        Raises:
            DbusError: the peer refused.
            UnavailableError: no answer, or none that can be read.

        """
        self._serial += 1
        deadline = time.monotonic() + self.timeout_s
        request = messages.call(self._serial, target, member, signature, values)
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise UnavailableError(f"D-Bus: {error.strerror or error}") from error
        while True:
            message = self._receive(deadline)
            if message.kind == messages.SIGNAL:
                self._signals.append(message)
            elif message.reply_serial == self._serial:
                return _answer(message)

    def subscribe(self, rule: str) -> None:
        """Have the bus pass on the signals that match ``rule``."""
        self.call(_BUS, "AddMatch", "s", [rule])

    def next_signal(self, interface: str, member: str, deadline: float) -> list[Any]:
        """Return the body of the next such signal, perhaps one that came already. Blocks.

        Raises:
            UnavailableError: none until ``deadline`` of the monotonic clock.

        """
        while True:
            message = self._signals.pop(0) if self._signals else self._receive(deadline)
            if (message.kind, message.interface) == (messages.SIGNAL, interface) and (
                message.member == member
            ):
                return message.body

    def _authenticate(self) -> None:
        # As the kernel tells the peer, which is outside of a user namespace that we may be in.
        identity = str(namespaces.uid_outside()).encode().hex()
        # BEGIN in advance: systemd overlooks a call that reaches it together with this word.
        self._socket.sendall(f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode())
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)  # not a byte of what follows
            if not byte or len(line) > _LINE_LIMIT_BYTES:
                raise UnavailableError("D-Bus: the peer hung up")
            line += byte
        if not line.startswith(b"OK "):
            raise UnavailableError(f"D-Bus: not authenticated: {line.decode(errors='replace')!r}")

    def _receive(self, deadline: float) -> Message:
        try:
            total = messages.length(self._take(messages.FIXED_BYTES, deadline, keep=True))
            return messages.parse(self._take(total, deadline))
        except WireError as error:
            raise UnavailableError(f"D-Bus: {error}") from None

    def _take(self, size: int, deadline: float, *, keep: bool = False) -> bytes:
        while len(self._pending) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(f"D-Bus: no answer within {self.timeout_s:g} s")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                raise UnavailableError(f"D-Bus: {error.strerror or error}") from error
            if not chunk:
                raise UnavailableError("D-Bus: the peer hung up")
            self._pending += chunk
        data = self._pending[:size]
        if not keep:
            self._pending = self._pending[size:]
        return data


def open_connection(path: str, *, is_bus: bool, timeout_s: float = 30) -> Connection:
    """Connect to the socket ``path``; the caller closes what is returned.

    Raises:
        UnavailableError: nobody listens there, or not for this user.

    """
    try:
        return Connection(path, is_bus=is_bus, timeout_s=timeout_s)
    except OSError as error:
        raise UnavailableError(f"cannot connect to {path}: {error.strerror or error}") from error


def _answer(message: Message) -> list[Any]:
    if message.kind == messages.ERROR:
        text = str(message.body[0]) if message.body else ""
        raise DbusError(message.error_name, text)
    return message.body
