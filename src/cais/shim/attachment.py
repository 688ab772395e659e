"""One attached client: the stream socket the shim holds for it.

Out go raw bytes, or stdcopy frames (stream number, three zeros, big-endian length, bytes); in comes
the program's input. A client that reads slowly gets a backlog; one that reads nothing for
``STALL_S`` while its backlog is full, or while it alone is left of an ended process, is dropped.

    waiting ──open──▶ open ──finish──▶ finishing ──last byte sent──▶ closed
                        └──hang-up, stall, close───────────────────────┘
"""

from __future__ import annotations

import socket
import struct

from cais.shim.backlog import Backlog
from cais.shim.loop import ERROR, HANGUP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cais.shim.loop import Loop, Timer

    class Owner(Protocol):
        """The streams of the process a client is attached to."""

        def take_input(self, client: Attachment, data: bytes) -> None:
            """Feed ``data`` to the program."""

        def end_input(self, client: Attachment) -> None:
            """The client will send no more."""

        def has_room(self, client: Attachment) -> None:
            """The client's backlog is not full any more."""

        def forget(self, client: Attachment) -> None:
            """The client is closed."""


STALL_S = 10.0
SEND_BUFFER = 512 << 10
_READ_SIZE = 256 << 10
_NUMBERS = {"stdout": 1, "stderr": 2}
_SO_SNDBUFFORCE = 32

_input_buffer = memoryview(bytearray(_READ_SIZE))


class Attachment:
    """See the module. ``streams``: which of the outputs it wants; ``stdin``: it may send input."""

    def __init__(
        self, loop: Loop, channel: socket.socket, *, streams: frozenset[str], stdin: bool, tty: bool
    ) -> None:
        """Own ``channel``, a connected stream socket; wait for ``open``."""
        channel.settimeout(0)
        _enlarge(channel)
        self._loop = loop
        self._channel = channel
        self._fd = channel.fileno()
        self._backlog = Backlog(".")
        self._owner: Owner | None = None
        self._stall: Timer | None = None
        self._mask: int | None = None  # what the loop watches for; None: nothing at all
        self._progressed = False
        self._finishing = False
        self._hung_up = False
        self._reads = stdin
        self._paused = True
        self.is_closed = False
        self.streams = streams
        self.stdin = stdin
        self.tty = tty
        self._update()

    def open(self, owner: Owner, spill_directory: str) -> None:
        """Begin to pass input to ``owner`` and to take output."""
        self._owner = owner
        self._backlog = Backlog(spill_directory)
        self._paused = False
        self._update()

    @property
    def is_full(self) -> bool:
        """Whether the source of its output should wait."""
        return self._backlog.is_full

    def send(self, stream: str, data: bytes) -> None:
        """Deliver ``data``, as far as the client wants ``stream``. Never blocks nor raises."""
        if not self._wants(stream):
            return
        header = b"" if self.tty else struct.pack(">BxxxI", _NUMBERS[stream], len(data))
        sent = 0
        if not len(self._backlog):
            sent = self._try_send([header, data])
            if sent == len(header) + len(data) or not self._wants(stream):
                return
        if sent < len(header):
            self._backlog.append(header[sent:])
        self._backlog.append(memoryview(data)[max(0, sent - len(header)) :])
        if self._backlog.is_full:
            self._watch_for_stall()
        self._update()

    def _wants(self, stream: str) -> bool:
        return stream in self.streams and not (self._hung_up or self._finishing)

    def pause_input(self) -> None:
        """Read nothing from the client until ``resume_input``."""
        if not self._paused:
            self._paused = True
            self._update()

    def resume_input(self) -> None:
        """Read from the client again."""
        if self._paused and self._owner is not None:
            self._paused = False
            self._update()

    def refuse_input(self) -> None:
        """Read from the client no more; what it sends stays unread, as before a closed pipe."""
        self._reads = False
        if self._hung_up:
            self.close()
        self._update()

    def finish(self) -> None:
        """Take no more output; close once what there is has been read, at once if nothing is."""
        self._finishing = True
        self._reads = False
        if not len(self._backlog):
            self.close()
        elif not self.is_closed:
            self._watch_for_stall()
            self._update()

    def close(self) -> None:
        """Close the socket now. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.unwatch(self._fd)
        self._backlog.close()
        if self._stall is not None:
            self._stall.cancel()
        self._channel.close()
        if self._owner is not None:
            self._owner.forget(self)

    def _ready(self, events: int) -> None:
        if events & (HANGUP | ERROR):
            self._hang_up()
        if events & WRITE and not self.is_closed and not self._hung_up:
            self._flush()
        if events & (READ | HANGUP) and self._reads and not self._paused:
            self._receive()
        if not self.is_closed:
            self._update()

    def _hang_up(self) -> None:
        """Nobody will read; input that was sent before may still wait to be read by us."""
        was_full = self.is_full
        self._hung_up = True
        self._backlog.close()
        if was_full and self._owner is not None:
            self._owner.has_room(self)
        if not self._reads:
            self.close()

    def _receive(self) -> None:
        try:
            count = self._channel.recv_into(_input_buffer)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count == 0:
            self._end_input()
        elif self._owner is not None:
            self._owner.take_input(self, bytes(_input_buffer[:count]))

    def _end_input(self) -> None:
        self._reads = False
        if self._owner is not None:
            self._owner.end_input(self)
        if self._hung_up:
            self.close()

    def _flush(self) -> None:
        was_full = self.is_full
        budget = 1 << 20  # then others have their turn
        while budget > 0 and len(self._backlog):
            chunk = self._backlog.peek()
            sent = self._try_send([chunk])
            if self._hung_up:
                return
            if not sent:
                break
            self._backlog.consume(sent)
            budget -= sent
        if was_full and not self.is_full and self._owner is not None:
            self._owner.has_room(self)
        if self._finishing and not len(self._backlog):
            self.close()

    def _try_send(self, buffers: list[bytes | memoryview]) -> int:
        try:
            sent = self._channel.sendmsg(buffers, (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self._hang_up()
            return 0
        self._progressed = True
        return sent

    def _watch_for_stall(self) -> None:
        if self._stall is None or not self._stall.is_pending:
            self._progressed = False
            self._stall = self._loop.call_later(STALL_S, self._check_stall)

    def _check_stall(self) -> None:
        if not self._hung_up:
            self._flush()  # epoll says writable only once most of the buffer has been read
        if self.is_closed or not (self.is_full or self._finishing):
            return
        if self._progressed:
            self._watch_for_stall()
        else:
            self.close()

    def _update(self) -> None:
        """Bring what the loop watches for in line with the state."""
        if self.is_closed:
            return
        mask = READ if self._reads and not self._paused else 0
        if len(self._backlog) and not self._hung_up:
            mask |= WRITE
        # A hang-up is level-triggered: watched on, it would spin until the input has been read.
        wanted = None if self._hung_up and not mask else mask
        if wanted == self._mask:
            return
        if wanted is None:
            self._loop.unwatch(self._fd)
        elif self._mask is None:
            self._loop.watch(self._fd, wanted, self._ready)
        else:
            self._loop.rewatch(self._fd, wanted)
        self._mask = wanted


def _enlarge(channel: socket.socket) -> None:
    try:
        channel.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
    except OSError:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
