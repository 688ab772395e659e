"""Hooks of the runtime's own namespaces, run by a process of their own: the parent never waits.

    runner {"warning": text}     a hook failed where failures are only told
           {"ready": true}       all have been run
           {"error": {...}}      one failed; those behind it were not run

Spec: OCI runtime-spec 1.2, config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
from signal import SIGKILL, pidfd_send_signal

from cais.linux import process
from cais.runtime import channel as channels
from cais.runtime import child, settle
from cais.runtime.launch import LaunchError, error_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from cais.runtime.channel import Channel
    from cais.runtime.hooks import Hooks


class HookRun:
    """Hooks under way: poll ``fileno()`` and call ``advance()`` until it is true.

    Owns its process. ``warnings`` are the failures that were only told.
    """

    __slots__ = ("_line", "_pidfd", "warnings")

    def __init__(self, hooks: Hooks, points: Sequence[str], pid: int, *, tolerant: bool) -> None:
        """Begin the hooks of ``points``, one after the other.

        Args:
            hooks: of the container.
            points: at which they are run.
            pid: the container's process for their state; 0 when it has ended.
            tolerant: a failure is a warning, and the next hook is run.

        """
        self.warnings: list[str] = []
        process.set_dumpable(dumpable=False)
        self._line, theirs = channels.open_channel()
        try:
            ignored = process.ignored_signals()
            runner_pid, self._pidfd = process.clone(0)
            if runner_pid == 0:
                _run(hooks, points, pid, theirs, ignored, tolerant=tolerant)
        except BaseException:
            self._line.close()
            raise
        finally:
            theirs.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress."""
        return self._line.fileno()

    def advance(self) -> bool:
        """Say whether all hooks have been run; false: not yet. Never blocks.

        Raises:
            LaunchError: a hook failed; the runner is gone.

        """
        try:
            while not self._take(self._line.receive()[0]):
                continue
        except BlockingIOError:
            return False
        except BaseException:
            self.end()
            raise
        self.end()
        return True

    def _take(self, message: dict[str, Any] | None) -> bool:
        """Act on one message; true: it was the last."""
        if message is None:
            raise LaunchError("the process that runs hooks was killed", step="run hook")
        if message.get("ready") is True:
            return True
        if not isinstance(message.get("warning"), str):
            raise error_of(message.get("error"))
        self.warnings.append(message["warning"])
        return False

    def end(self) -> None:
        """Kill the runner, and with it the hook it runs; idempotent."""
        if self._pidfd < 0:
            return
        try:
            pidfd_send_signal(self._pidfd, SIGKILL)
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended, and somebody who reaps orphans was faster
        os.close(self._pidfd)
        self._pidfd = -1
        self._line.close()


def _run(
    hooks: Hooks,
    points: Sequence[str],
    pid: int,
    line: Channel,
    ignored: Sequence[int],
    *,
    tolerant: bool,
) -> NoReturn:
    failures: list[str] | None = [] if tolerant else None
    try:
        child.isolate([line.fileno()])
        settle.reset_signals(ignored)
        os.chdir(hooks.facts.bundle)
        for point in points:
            hooks.run(point, hooks.open_state(point, pid), failures)
        for text in failures or ():
            line.send({"warning": text[: channels.TEXT_LIMIT]})
        line.say_ready()
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's frames
        child.report(line, error)
    os._exit(0)
