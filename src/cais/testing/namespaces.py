"""Network, mount and pid namespaces of a test's own, in which it runs programs."""

import subprocess
import sys
from pathlib import Path
from typing import Self

_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class Namespaces:
    """A context manager; every process that is left in them is killed at its end. Needs root."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[str] | None = None
        self.pid = 0
        """Of their first process, once they are there."""

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs the rest inside."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "--"]

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            [*_UNSHARE, "--propagation", "private", sys.executable, "-m", "cais.testing.holder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.pid = int(children.read_text().split()[0])
        subprocess.run([*self.enter, "ip", "link", "set", "lo", "up"], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process in them; idempotent."""
        if self._holder is None:
            return
        self._holder.kill()  # unshare --kill-child takes the namespace's first process along
        self._holder.wait()
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            pipe.close()
        self._holder = None
