"""Processes cloned ahead: the parent's side; the other is ``spare``.

What a start costs is mostly the clone and the pages the child copies by writing to them, and
neither depends on the container. A spare has both behind it. Of namespaces and control group it
has none yet: a start clones it once more, without its memory (``linux.succession``), so what
the host has mounted and where its processes are counted is as with any other start.

    nursery = Nursery()             clone this process, once, before it knows any container
    coming = nursery.order()        when there is nothing better to do
    spares.add(coming.admit())      when coming.fileno() is readable
    spare.start(...)                in ``starter``, or spare.execute(...) in ``execution``
    nursery.make(...)               where none waits, or it must be born elsewhere

That nothing of any container is in its memory counts as much: what is born in a container's pid
namespace, of it or as it, can be read there by who has CAP_SYS_PTRACE.
"""

from __future__ import annotations

import contextlib
import os
import select

from cais.errors import UnavailableError
from cais.linux import process
from cais.linux.pages import own_pages
from cais.linux.succession import Births, seize
from cais.linux.syscalls import KernelError
from cais.runtime import channel, packing, spare
from cais.runtime.errands import Errands
from cais.runtime.forerunner import Forerunner
from cais.runtime.launch import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cais.linux.pages import Ranges
    from cais.linux.siblings import Birth
    from cais.runtime.channel import Channel
    from cais.runtime.child import Inheritance
    from cais.runtime.plan import ContainerPlan
    from cais.runtime.process_plan import ProcessPlan
    from cais.runtime.seccomp_agent import Agent


class Nursery:
    """The process all spares are cloned from, and its line. It ends with the caller."""

    __slots__ = ("_births", "_line", "_own_pages", "_pidfd")

    def __init__(self) -> None:
        """Clone the caller: single-threaded, warm, not dumpable, with nothing to hide yet."""
        self._own_pages: Ranges = []  # what a spare will write to, known after the first start
        self._births = Births()
        self._line, theirs = channel.open_gift_line()
        try:
            parent_pid, ignored = os.getpid(), process.ignored_signals()
            pid, pidfd = process.clone(0)
            if pid == 0:
                spare.serve(theirs, parent_pid, ignored)
            self._pidfd = pidfd
        except BaseException:
            self._line.close()
            raise
        finally:
            theirs.close()

    def order(self) -> Coming:
        """Have a spare made.

        Raises:
            OSError: the nursery has ended.

        """
        return self._order(0, -1, self._own_pages)

    def make(self, flags: int, cgroup_fd: int) -> Spare:
        """Have a spare made at once, for what one that waits does not fit.

        Args:
            flags: CLONE_NEW* it is born with.
            cgroup_fd: a cgroup v2 directory it is born in; -1: the caller's. Borrowed.

        Raises:
            UnavailableError: the nursery has ended.
            OSError: it could not be cloned, as ``process.clone``.

        Blocks: until it is cloned.

        """
        try:
            coming = self._order(flags, cgroup_fd, None)
        except OSError as exc:
            raise UnavailableError(f"no process to make another: {exc}") from exc
        coming.wait()
        return coming.admit()

    def _order(self, flags: int, cgroup_fd: int, own_pages: Ranges | None) -> Coming:
        birth = self._births.take()
        ours, theirs = channel.open_gift_line()
        try:
            words = packing.encode("breed", (birth.address, flags), own_pages)
            group = [cgroup_fd] if cgroup_fd >= 0 else []
            self._line.give(words, [theirs.fileno(), *group])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Coming(ours, birth, self._own_pages)

    def is_alive(self) -> bool:
        """Say whether it can be asked for more."""
        return not _is_readable(self._pidfd, 0)

    def close(self) -> None:
        """End and reap it; no spare is made any more."""
        self._line.close()
        _end(self._pidfd)


class Coming:
    """A spare that was ordered; owns the line until it is admitted."""

    __slots__ = ("_birth", "_line", "_own_pages")

    def __init__(self, line: Channel, birth: Birth, own_pages: Ranges) -> None:
        self._line = line
        self._birth = birth
        self._own_pages = own_pages

    def fileno(self) -> int:
        """Return the descriptor that is readable when it has come, or never will."""
        return self._line.fileno()

    def wait(self) -> None:
        """Return when ``fileno`` is readable. Blocks: until the nursery has cloned."""
        _is_readable(self._line.fileno(), None)

    def admit(self) -> Spare:
        """Return it.

        Raises:
            UnavailableError: it has ended.
            OSError: it could not be cloned; or no descriptor is left.

        """
        try:
            message, _ = self._line.receive()
            if message == spare.WAITING:
                return Spare(self._line, self._birth, self._own_pages)
        except BaseException:
            self._line.close()
            raise
        self._line.close()
        if message is not None and "errno" in message:
            raise KernelError(message["errno"], "clone3")
        raise UnavailableError(f"no process to keep ready: {message}")


class Spare:
    """A process that waits; owns its line and its pidfd until it is used or closed."""

    __slots__ = ("_birth", "_line", "_own_pages", "_pidfd", "pid")

    def __init__(self, line: Channel, birth: Birth, own_pages: Ranges) -> None:
        self._own_pages = own_pages
        self.pid = birth.pid
        self._pidfd = os.pidfd_open(self.pid)
        birth.close()  # the next one's place
        self._line = line
        self._birth = birth

    def is_alive(self) -> bool:
        """Say whether it still waits."""
        return not _is_readable(self._pidfd, 0)

    def close(self) -> None:
        """End and reap it."""
        self._line.close()
        _end(self._pidfd)

    def start(
        self,
        container: ContainerPlan,
        given: Inheritance,
        cgroup_fd: int,
        clean_up: Callable[[], None],
    ) -> Launch:
        """Have it become the container's process.

        Raises:
            OSError: it cannot be; nothing was started, and it is closed.
            ValueError: something of the plan is not carried; likewise.

        """
        studies = not self._own_pages
        shape = (self._birth.address, cgroup_fd >= 0, studies)
        try:
            facts, fds = packing.pack_given(given)
            if cgroup_fd >= 0:
                fds.append(cgroup_fd)
            words = packing.encode("start", shape, facts, packing.pack(container, given.trees))
            seize(self.pid)
        except BaseException:
            self.close()
            raise
        line = self._employ(words, fds)
        process_ = Predecessor((self.pid, self._pidfd), self._birth, line)
        study = PageStudy(line, self._own_pages) if studies else None
        warnings = container.process.warnings
        return Launch(line, None, process_, warnings=warnings, errands=study, clean_up=clean_up)

    def execute(
        self,
        wanted: ProcessPlan,
        given: Inheritance,
        target: tuple[int, int],
        agent: Agent | None = None,
    ) -> Launch:
        """Have it be stage one of an exec; as ``start``."""
        init_pidfd, flags = target
        shape = (self._birth.address, flags)
        try:
            facts, fds = packing.pack_given(given)
            words = packing.encode("exec", shape, facts, packing.pack(wanted))
        except BaseException:
            self.close()
            raise
        line = self._employ(words, [*fds, init_pidfd])
        process_ = Forerunner((self.pid, self._pidfd), self._birth, line)
        errands = Errands(line, None, agent, wanted.tuning)
        return Launch(line, None, process_, warnings=wanted.warnings, errands=errands)

    def forerun(
        self, container: ContainerPlan, given: Inheritance, clean_up: Callable[[], None]
    ) -> Launch:
        """Have it be the forerunner of a container's process; as ``start``.

        It must have been born with the namespaces and the group that are new.
        """
        try:
            facts, fds = packing.pack_given(given)
            packed = packing.pack(container, given.trees)
            words = packing.encode("forerun", self._birth.address, facts, packed)
        except BaseException:
            self.close()
            raise
        line = self._employ(words, fds)
        process_ = Forerunner((self.pid, self._pidfd), self._birth, line)
        warnings = container.process.warnings
        errands = Errands(line, None, container.agent, container.process.tuning)
        return Launch(line, None, process_, warnings=warnings, errands=errands, clean_up=clean_up)

    def _employ(self, words: bytes, fds: list[int]) -> Channel:
        """Tell it what to become; return the line it will speak on. Closes all on failure."""
        try:
            ours, theirs = channel.open_channel()
            try:
                self._line.give(words, [theirs.fileno(), *fds])
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
        except BaseException:
            self.close()
            raise
        self._line.close()
        return ours


class PageStudy(Errands):
    """What is to be learned from the first start: which pages every start writes to."""

    __slots__ = ("_found",)

    def __init__(self, line: Channel, found: Ranges) -> None:
        """``found`` gets them."""
        super().__init__(line, None, None, None)
        self._found = found

    def take(self, message: dict[str, Any], pid: int | None, asking_fd: int) -> bool:
        """Look at a child that is at its last step, and let it go on."""
        if message.get("pages") is not True or pid is None:
            return super().take(message, pid, asking_fd)
        with contextlib.suppress(OSError):  # the next ones are no faster then
            self._found[:] = own_pages(pid)
        self._line.send({"go": True})
        return True


class Predecessor(Forerunner):
    """A spare whose successor speaks for itself; it has nothing to say and must not run again."""

    __slots__ = ()

    def __init__(self, process_: tuple[int, int], birth: Birth, line: Channel) -> None:
        super().__init__(process_, birth, line, prepares=False)

    def is_heard(self, sender: int) -> bool:
        """Say whether a message is its own or its successor's."""
        return sender in self.children

    def has_ended_silently(self) -> bool:
        """Say whether it has, or its successor before its first word.

        Then it is held in the kernel, as it must be, and its end of the line stays open.
        """
        return super().has_ended_silently() or self._has_no_successor_any_more()

    def _has_no_successor_any_more(self) -> bool:
        pid = self._birth.pid
        if not pid:
            return False
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None and not _is_readable(self._line.fileno(), 0)

    def make_way(self, line: Channel) -> None:
        """End it, which is held in the kernel since its successor exists."""
        del line
        process.kill(self.pidfd)


def _end(pidfd: int) -> None:
    """Kill and reap a child that a loop may have reaped already; closes ``pidfd``."""
    process.kill(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)


def _is_readable(fd: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))
