"""The forerunner of a container's process: it prepares what it can, makes that one, and ends.

It is a child of the caller, and so is the process it makes (``linux.siblings``), which it tells
the caller of by its last word. When it is killed before that, the other one is found in memory:
nothing runs on that nobody knows, and nothing is left unreaped.
"""

from __future__ import annotations

import os
import select

from cais.linux.process import kill
from cais.linux.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.siblings import Birth
    from cais.runtime.channel import Channel


class Forerunner:
    """Owns the pidfd and the memory.

    ``prepares`` is false where it only entered a user namespace, in which the container's process
    then prepares itself.
    """

    __slots__ = ("_birth", "_either", "_line", "pid", "pidfd", "prepares")

    def __init__(
        self, process: tuple[int, int], birth: Birth, line: Channel, *, prepares: bool = True
    ) -> None:
        """Take over a process (its pid and pidfd), a child that speaks on ``line``.

        OSError: no descriptor is left for it; it is gone and reaped.
        """
        self.pid, self.pidfd = process
        self.prepares = prepares
        self._birth = birth
        self._line = line
        try:
            self._either = select.epoll(2)
        except OSError:
            self._give_up()
            raise
        for fd in (line.fileno(), self.pidfd):
            self._either.register(fd, select.EPOLLIN)

    @property
    def children(self) -> set[int]:
        """Its pid, and that of the process it has made, told or not."""
        return {self.pid, self._birth.pid} - {0}

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a message, or it has ended."""
        return self._either.fileno()

    def is_heard(self, sender: int) -> bool:
        """Say whether a message of the process ``sender`` is to be believed."""
        return sender == self.pid

    def make_way(self, line: Channel) -> None:
        """Let the process it has told of go on."""
        line.send({"go": True})

    def has_ended_silently(self) -> bool:
        """Say whether it has ended and all that it said has been received."""
        states = dict(self._either.poll(0))
        return self.pidfd in states and self._line.fileno() not in states

    def reap(self) -> None:
        """Wait for its end, which follows its last word, and give up what is owned.

        Blocks: until it has ended.
        """
        self._either.close()
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        self._birth.close()

    def kill(self, *, with_its_process: bool) -> None:
        """End and reap it, and the process it has made if nobody else was told of that.

        Blocks: for as long as the kernel needs to end a killed process.
        """
        self._either.close()
        self._give_up(with_its_process=with_its_process)

    def _give_up(self, *, with_its_process: bool = True) -> None:
        kill(self.pidfd)
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        os.close(self.pidfd)
        if with_its_process and self._birth.pid:
            os.kill(self._birth.pid, SIGKILL)
            os.waitpid(self._birth.pid, 0)
        self._birth.close()
