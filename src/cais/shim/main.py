"""cais-shim: the warm parent of every container of one data root.

    cais-shim --data-root DIR --exec-root DIR [--ready-fd N] [--foreground]

It goes into the background, takes <data-root>/shim.lock, listens on <exec-root>/shim.sock and
writes "ready" to N; on failure it writes why to standard error and exits with 1. SIGTERM ends it
when it holds no container and is noted in <exec-root>/shim.log when it does.
"""

from __future__ import annotations

import os
import signal
import sys

from cais.errors import InvalidArgumentError
from cais.runtime import container as runtime
from cais.shim import daemon, launcher, preload
from cais.shim.containers import Containers
from cais.shim.loop import Loop
from cais.shim.netns import Home
from cais.shim.protocol import LOCK_NAME
from cais.shim.server import Server
from cais.shim.spare_keeper import SpareKeeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.contracts import Runtime

USAGE = "usage: cais-shim --data-root DIR --exec-root DIR [--ready-fd N] [--foreground]"


_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Options:
    """The command line."""

    __slots__ = ("data_root", "exec_root", "foreground", "ready_fd")

    def __init__(self, args: list[str]) -> None:
        """Parse ``args``. InvalidArgumentError: not what USAGE says."""
        self.data_root = self.exec_root = ""
        self.ready_fd = -1
        self.foreground = False
        rest = iter(args)
        for option in rest:
            if option == "--foreground":
                self.foreground = True
            elif option == "--data-root":
                self.data_root = os.path.abspath(next(rest, ""))
            elif option == "--exec-root":
                self.exec_root = os.path.abspath(next(rest, ""))
            elif option == "--ready-fd":
                self.ready_fd = _number(next(rest, ""))
            else:
                raise InvalidArgumentError(f"unknown option {option}\n{USAGE}")
        if not self.data_root or not self.exec_root:
            raise InvalidArgumentError(USAGE)


def main(args: list[str] | None = None, *, with_runtime: Runtime = runtime) -> int:
    """Run the program; return its exit status. ``with_runtime`` is for tests."""
    arguments = sys.argv[1:] if args is None else args
    if arguments in (["--help"], ["-h"]):
        print(__doc__.strip())  # noqa: T201 - this is the program
        return 0
    try:
        options = Options(arguments)
        launcher.execute_sealed(arguments)
        if not options.foreground:
            daemon.detach()
        shim = Shim(options, with_runtime)
    except Exception as exc:  # noqa: BLE001 - whoever started it must hear why it did not
        os.write(2, daemon.complain(exc).encode(errors="replace"))
        return 1
    shim.run()
    return 0


class Shim:
    """The parts of the program, and their life."""

    def __init__(self, options: Options, with_runtime: Runtime) -> None:
        """Become the shim and listen. ConflictError: the data root has one."""
        daemon.close_inherited(options.ready_fd)
        for directory in (options.data_root, options.exec_root):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        lock_path = os.path.join(options.data_root, LOCK_NAME)
        self._lock_fd = daemon.lock(lock_path, options.exec_root)
        self._socket_path, log_path = daemon.exec_root_paths(options.exec_root)
        ready_fd = _take(options.ready_fd)
        self._journal = daemon.Journal(log_path)
        if not options.foreground:
            daemon.silence_input_and_output()
        daemon.settle(self._journal.write)
        self._loop = Loop(self._journal.report)
        self._build(options, with_runtime)
        daemon.freeze()
        if ready_fd >= 0:
            os.write(ready_fd, launcher.READY)
            os.close(ready_fd)
        preload.load()
        self._spares = SpareKeeper(self._loop, self._journal.report)
        if with_runtime is runtime:
            self._containers.on_launch = self._spares.wake
            self._spares.open()

    def run(self) -> None:
        """Serve until the engine or a signal says so."""
        self._loop.run()
        self._spares.close()
        os.unlink(self._socket_path)

    def _build(self, options: Options, with_runtime: Runtime) -> None:
        server = Server(
            self._loop,
            self._socket_path,
            home=Home(),
            report=self._journal.report,
            shutdown=self._loop.stop,
        )
        self._containers = server.containers = Containers(
            self._loop,
            with_runtime,
            tell=server.tell,
            report=self._journal.report,
            spill_directory=options.data_root,
            command_directory=os.path.join(options.exec_root, "runtimes", "cais"),
        )
        containers = self._containers
        reaper = daemon.Reaper(
            self._loop, containers.look_at_launches, lambda: containers.known_pids
        )
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGCHLD: reaper.wake,
            signal.SIGTERM: self._terminate,
        }
        handlers |= dict.fromkeys(_IGNORED, _ignore)
        self._signals = daemon.Signals(self._loop, handlers)

    def _terminate(self) -> None:
        if self._containers.is_empty:
            self._loop.stop()
        else:
            self._journal.write("SIGTERM is not obeyed while there are containers")


def _take(fd: int) -> int:
    """Return a descriptor of our own for ``fd``, which is closed unless it is a standard one."""
    if fd < 0:
        return -1
    own_fd = os.dup(fd)
    if fd > 2:
        os.close(fd)
    return own_fd


def _ignore() -> None:
    pass


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgumentError(f"not a descriptor: {text!r}\n{USAGE}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
