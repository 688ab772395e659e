"""An ordinary user for kernel tests, with subordinate ids, in a mount namespace of its own.

The user exists only there: its lines are in copies of the files in /etc, bound over them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cais
from cais.testing.bundles import make_rootfs
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UID, SUBORDINATE = 4321, 400000
OURS = "cais-runtime"
RUNTIMES = [OURS, "runc"]
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from cais.runtime.command import main; main()"
)
_SOURCE = str(Path(cais.__file__).parents[1])
_LINES = {
    "passwd": f"walker:x:{UID}:{UID}::/tmp:/bin/sh",
    "group": f"walker:x:{UID}:",
    "subuid": f"walker:{SUBORDINATE}:65536",
    "subgid": f"walker:{SUBORDINATE}:65536",
}
SINGLE = [{"containerID": 0, "hostID": UID, "size": 1}]
RANGE = [*SINGLE, {"containerID": 1, "hostID": SUBORDINATE, "size": 65536}]


class Walker:
    """The user: a directory of its own with a bundle, and a runtime it calls."""

    def __init__(self, directory: Path, runtime: str) -> None:
        self.directory = directory
        self.bundle = directory / "bundle"
        self.run_directory = directory / "run"
        self.id = f"rootless-{os.getpid()}"
        self.runtime = runtime
        for place in (self.bundle, self.run_directory):
            place.mkdir()
        make_rootfs(self.bundle / "rootfs")
        subprocess.run(["chown", "-hR", f"{UID}:{UID}", directory], check=True)
        self("spec", "--rootless", "--bundle", str(self.bundle))
        self.config: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        self.process["terminal"] = False
        self.config["root"]["readonly"] = False
        self.map_ids(SINGLE)

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def map_ids(self, lines: list[dict[str, int]]) -> None:
        self.linux.update(uidMappings=lines, gidMappings=lines)

    def as_user(self, *program: str) -> list[str]:
        env = [f"PATH={os.environ['PATH']}", f"XDG_RUNTIME_DIR={self.run_directory}"]
        user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return [*user, "env", "-i", *env, *program]

    def command(self, *args: str, before: tuple[str, ...] = ()) -> list[str]:
        ours = [sys.executable, "-c", _PROGRAM, _SOURCE]
        runtime = ours if self.runtime == OURS else [self.runtime]
        return self.as_user(*before, *runtime, *args)

    def __call__(self, *args: str, code: int = 0, before: tuple[str, ...] = ()) -> str:
        """Run a command of the runtime as the user and return what it wrote."""
        done = subprocess.run(
            self.command(*args, before=before),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def save(self) -> None:
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def shell(self, script: str, *options: str, code: int = 0, **more: Any) -> str:
        """Run a container of the bundle to its end."""
        self.process["args"] = ["sh", "-c", script]
        self.save()
        return self(*options, "run", "--bundle", str(self.bundle), self.id, code=code, **more)

    def create(self, *options: str, before: tuple[str, ...] = ()) -> None:
        """Create and start a container that sleeps; its output goes nowhere."""
        self.process["args"] = ["sleep", "60"]
        self.save()
        run = ("run", "--detach", "--bundle", str(self.bundle), self.id)
        command = self.command(*options, *run, before=before)
        null = subprocess.DEVNULL
        with open(self.directory / "errors", "w+") as errors:  # which the container keeps open
            done = subprocess.run(
                command, stdin=null, stdout=null, stderr=errors, timeout=PATIENCE_S, check=False
            )
            errors.seek(0)
            assert done.returncode == 0, errors.read()


@contextmanager
def walker(runtime: str = OURS) -> Iterator[Walker]:
    """Make the user in the caller's mount namespace, which must be its own, and take it back."""
    directory = Path(tempfile.mkdtemp(prefix="walker-"))
    directory.chmod(0o755)
    mounted: list[Path] = []
    missing = [place for place in (Path("/etc") / name for name in _LINES) if not place.exists()]
    try:
        for name, line in _LINES.items():
            _add_line(directory / name, Path("/etc") / name, line, mounted)
        _open_the_way({sys.base_prefix, sys.prefix, _SOURCE}, mounted)
        yield Walker(directory, runtime)
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", place], check=True)
        for place in missing:
            place.unlink()
        shutil.rmtree(directory)


def with_walker(body: Callable[[Walker], None], runtime: str = OURS) -> None:
    def inner() -> None:
        with walker(runtime) as user:
            body(user)

    isolated(inner, timeout_s=90)


@contextmanager
def delegated_group() -> Iterator[Path]:
    """Make this host one of cgroup v2 alone, with a group that is the user's; be in it."""
    subprocess.run(["umount", "-lR", "/sys/fs/cgroup"], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
    root = Path("/sys/fs/cgroup")
    group = root / f"rootless-{os.getpid()}"
    home = root / Path("/proc/self/cgroup").read_text().split("0::/")[1].strip()
    (group / "own").mkdir(parents=True)
    for place in (group, group / "own"):
        for path in (place, *(place / f"cgroup.{name}" for name in ("procs", "subtree_control"))):
            os.chown(path, UID, UID)
    (group / "own/cgroup.procs").write_text(str(os.getpid()))
    try:
        yield group
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        for place in (group / "own", group):
            place.rmdir()
        subprocess.run(["umount", "/sys/fs/cgroup"], check=True)


def _add_line(copy: Path, original: Path, line: str, mounted: list[Path]) -> None:
    exists = original.exists()
    text = original.read_text() if exists else ""
    if not exists:
        original.touch()
    copy.write_text(f"{text.rstrip()}\n{line}\n".lstrip())
    _mount("--bind", str(copy), str(original))
    mounted.append(original)


def _open_the_way(paths: set[str], mounted: list[Path]) -> None:
    """Let the user reach directories below ones that are closed to it, such as /root."""
    closed: dict[Path, list[Path]] = {}
    for path in map(Path, sorted(paths)):
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 1:
                closed.setdefault(parent, []).append(path)
                break
    for parent, inner in closed.items():
        fds = [os.open(path, os.O_PATH) for path in inner]
        _mount("-t", "tmpfs", "-o", "mode=755", "open", str(parent))
        mounted.append(parent)
        for path, fd in zip(inner, fds, strict=True):
            path.mkdir(parents=True, exist_ok=True)
            _mount("--no-canonicalize", "--bind", f"/proc/self/fd/{fd}", str(path), keep=fd)
            os.close(fd)
            mounted.append(path)


def _mount(*args: str, keep: int = -1) -> None:
    subprocess.run(["mount", *args], check=True, pass_fds=[keep] if keep >= 0 else [])
