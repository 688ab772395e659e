"""A4, A5, A7: a /dev of the attacker's, in which a name is exchanged at every moment of a start.

The bind is a volume that another container shares: ``console``, ``pts`` and the devices are what
the start looks for there, and the attacker puts a link in their place before each call in turn.
Wherever the link leads, only the names the document has may be mounted on.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from host_sentinel import attack

from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, end, read_terminal
from cais.testing.stopped_calls import exchange, run_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENTS = 400  # a start makes fewer calls
EXPECTED = {"/", "/proc", "/proc/keys", "/dev", "/dev/pts", "/dev/console", "/other"}
RENAMED = "/dev/link"  # what was mounted on, and has another name since


class Dev:
    """The attacker's /dev: what a name stands for, and the link it is exchanged for."""

    def __init__(self, path: Path, name: str, target: str) -> None:
        self.path = path
        self.name = name
        self.target = target

    def reset(self) -> None:
        """Make both anew; devices are made by the start where they are missing."""
        self.path.mkdir(exist_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                entry.rmdir()
            else:
                entry.unlink()
        (self.path / "pts").mkdir()
        os.mknod(self.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        if self.name == "console":
            (self.path / "console").touch()
        (self.path / "link").symlink_to(self.target)

    def flip(self) -> None:
        """Exchange the two, if the start has not removed either."""
        try:
            exchange(str(self.path / self.name), str(self.path / "link"))
        except FileNotFoundError:
            return


def prepare(bundle: Bundle, dev: Dev, sentinel: Path) -> None:
    """Mount the attacker's /dev and something of the host's a link can lead to."""
    bundle.config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": str(dev.path), "options": ["rbind"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/other", "type": "bind", "source": str(sentinel), "options": ["rbind"]},
    ]
    bundle.linux["maskedPaths"], bundle.linux["readonlyPaths"] = ["/proc/keys"], []
    bundle.process["terminal"] = True


def started(bundle: Bundle) -> str:
    """Return where something is mounted in a container with a terminal, or what was refused."""
    try:
        running = bundle.start("cat", "/proc/self/mountinfo", stdio=None)
    except LaunchError as refused:
        return json.dumps([str(refused)])
    assert running.terminal_fd is not None
    text = read_terminal(running.terminal_fd)
    assert end(running) == 0
    return json.dumps([None, *(line.split(" ")[4] for line in text.splitlines())])


class Flips:
    """Exchange the names before each of some calls of a process."""

    def __init__(self, dev: Dev, calls: range) -> None:
        self.dev = dev
        self.calls = calls
        self.seen = False

    def __call__(self, _: int, call: int) -> None:
        if call in self.calls:
            self.seen = True
            self.dev.flip()


def sweep(bundle: Bundle, dev: Dev) -> Iterator[tuple[str | None, set[str]]]:
    """Yield why each start was refused, and what it has mounted on."""
    for times in (1, 2):  # to the link; to it and back, for the length of one call
        for moment in range(MOMENTS):
            dev.reset()
            flips = Flips(dev, range(moment, moment + times))
            reason, *points = json.loads(run_stopped(lambda: started(bundle), flips))
            bundle.destroy()
            yield reason, set(points)
            if not flips.seen:
                break


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("console", "/proc/sys/kernel/core_pattern"),
        ("console", "/other/file"),
        ("pts", "/other"),
        ("null", "/proc/sys/kernel/core_pattern"),
    ],
)
def test_cve_2025_31133_and_52565_names_of_a_shared_dev_that_change(
    tmp_path: Path, sentinel: Path, name: str, target: str
) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()

    def body(bundle: Bundle) -> None:
        dev = Dev(tmp_path / "dev", name, target)
        dev.reset()
        prepare(bundle, dev, sentinel)
        reasons = set()
        for reason, points in sweep(bundle, dev):
            reasons.add(reason)
            assert points <= {*EXPECTED, RENAMED}, reason
        assert None in reasons, reasons

    attack(tmp_path, sentinel, body)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern
