"""A ``caisd`` whose /etc is its own, so that ``--userns-remap`` finds the accounts of the test."""

from pathlib import Path
from subprocess import CompletedProcess

from cais.testing.daemon import TestDaemon

FIRST, COUNT = 100_000, 65_536
"""The ids of the user ``remapped``."""

_ACCOUNTS = {
    "passwd": "remapped:x:4242:4242::/nonexistent:/bin/false\n",
    "group": "remapped:x:4242:\n",
    "subuid": f"remapped:{FIRST}:{COUNT}\n",
    "subgid": f"remapped:{FIRST}:{COUNT}\n",
}
_COVER = """
    mkdir -p "$0"
    mount -t tmpfs -o mode=0755 accounts "$0"
    mkdir "$0/changes" "$0/work"
    mount -t overlay -o "lowerdir=/etc,upperdir=$0/changes,workdir=$0/work" accounts /etc
"""


class RemappedDaemon(TestDaemon):
    """A daemon with ``--userns-remap``; as ``TestDaemon``.

    Args:
        directory: as there.
        remap: the value of the flag; None: started without it.
        arguments: as there.

    """

    def __init__(self, directory: Path, *arguments: str, remap: str | None = "remapped") -> None:
        super().__init__(directory, *arguments)
        self.remap = remap

    def command(self) -> list[str]:
        """Return the daemon's command line."""
        words = super().command()
        return words if self.remap is None else [*words, "--userns-remap", self.remap]

    def attempt(self, remap: str) -> CompletedProcess[str]:
        """Run ``caisd`` with another value of the flag, which it is to refuse."""
        self.remap = remap
        return self.run_inside(self.command(), check=False)

    def _hold_namespaces(self) -> None:
        super()._hold_namespaces()
        cover = self.directory / "etc"
        self.run_inside(["sh", "-ec", _COVER, str(cover)])
        for name, lines in _ACCOUNTS.items():
            self.run_inside(["sh", "-ec", 'printf %s "$1" >>"/etc/$0"', name, lines])
