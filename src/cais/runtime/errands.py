"""What the parent does for a child on its way to execve, where a document asks for it.

    child  {"network": true}   it is in its namespaces: network devices of the host may come
           {"hooks": true}     its root is assembled: the hooks of the runtime's namespaces may run
           {"listener": n}     it loaded a filter that notifies; n is its descriptor of the listener
    parent {"go": true}        done, after each

Imported only when one of these is asked for; ``launch.Launch`` does the rest.
"""

from __future__ import annotations

from cais.runtime import hooks as points
from cais.runtime import net_devices
from cais.runtime.hook_runner import HookRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cais.runtime.channel import Channel
    from cais.runtime.hooks import Hooks
    from cais.runtime.net_devices import Devices
    from cais.runtime.seccomp_agent import Agent
    from cais.runtime.tuning import Tuning


class Errands:
    """Of one launch; owns what is under way."""

    __slots__ = ("_agent", "_devices", "_hooks", "_is_over", "_line", "_run", "_tuning")

    def __init__(
        self,
        line: Channel,
        hooks: Hooks | None,
        agent: Agent | None,
        tuning: Tuning | None,
        devices: Devices | None = None,
    ) -> None:
        """``line`` leads to the child. Borrowed."""
        self._line = line
        self._hooks = hooks
        self._agent = agent
        self._tuning = tuning
        self._devices = devices
        self._run: HookRun | None = None
        self._is_over = False

    def fileno(self) -> int:
        """Return what is readable when hooks under way have made progress; -1: none are."""
        return self._run.fileno() if self._run is not None else -1

    def take(self, message: dict[str, Any], pid: int | None, pidfd: int) -> bool:
        """Do what the child asks for; false: it is no errand of ours.

        Args:
            message: the child's.
            pid: of the container's process, None while it does not exist.
            pidfd: of who asks. Borrowed.

        """
        if message.get("hooks") is True and self._hooks is not None and self._run is None:
            self._run = HookRun(self._hooks, points.IN_RUNTIME, pid or 0, tolerant=False)
            return True
        if message.get("network") is True and self._devices:
            net_devices.give(self._devices, pidfd)
            self._devices = None
            self._line.send({"go": True})
            return True
        number = message.get("listener")
        if type(number) is not int or number < 0 or self._agent is None:
            return False
        self._agent.take(pidfd, number)
        if pid is not None:
            self._agent.send(pid)
        self._line.send({"go": True})
        return True

    def process_known(self, pid: int) -> None:
        """Do what needs the pid of a process that was born inside, and waits."""
        if self._tuning is not None:
            self._tuning.set_scheduling(pid)
        if self._agent is not None:
            self._agent.send(pid)

    def advance(self) -> None:
        """Let the child go on once its hooks have been run.

        Raises:
            BlockingIOError: not yet.
            LaunchError: a hook failed.

        """
        if self._run is None:
            return
        if not self._run.advance():
            raise BlockingIOError
        self._run = None
        if not self._is_over:
            self._line.send({"go": True})

    def finish(self, pid: int) -> None:
        """Run the poststart hooks; the program runs. Raises as ``advance``, until they are done."""
        if self._hooks is not None and self._hooks.has("poststart") and not self._is_over:
            self._is_over = True
            self._run = HookRun(self._hooks, ("poststart",), pid, tolerant=False)
            raise BlockingIOError
        self._is_over = True

    def end(self) -> None:
        """Give up whatever is under way; idempotent."""
        if self._run is not None:
            self._run.end()
            self._run = None
        if self._agent is not None:
            self._agent.close()
