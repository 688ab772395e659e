"""A6, A8, A9, A17: what is looked up while somebody changes it, at every moment there is.

The container's root is "/" when its mounts are placed, so a link by name leads nowhere else: the
host is gone. What still leads out is a descriptor of the host's that the process holds, by
``/proc/self/fd``. The attacker owns a volume and exchanges a directory of it for such a link (the
sentinel's, which is mounted later) before each call in turn: see ``stopped_calls``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from host_sentinel import attack, outcome

from cais.runtime.launch import LaunchError, Stdio
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.stopped_calls import exchange, run_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
MOMENTS = 400  # a start makes fewer calls


def bind(destination: str, source: Path) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind"]}


def tmpfs(destination: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs"}


class Volume:
    """The attacker's: ``a`` is a directory, ``link`` the way out; ``flip`` exchanges them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.a, self.link = path / "a", path / "link"

    def reset(self, target: str, *, flipped: bool) -> None:
        """Make both anew."""
        self.path.mkdir(exist_ok=True)
        for path in (self.a, self.link):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        self.a.mkdir()
        self.link.symlink_to(target)
        if flipped:
            self.flip()

    def flip(self) -> None:
        exchange(str(self.a), str(self.link))


def moments(
    volume: Volume, sentinel: Path, body: Callable[[], str], link: str = ""
) -> Iterator[str]:
    """Yield what ``body`` answers, with the exchange before each of its calls in turn.

    To the link, from the link, and to the link for the length of one call.

    Args:
        volume: the attacker's.
        sentinel: what the link shall lead to, in the process's own descriptors.
        body: starts something; runs in a fork.
        link: where the link leads, when that is known already.

    """
    found = {link} - {""}

    def look(pid: int, _: int) -> None:
        found.update(f"/proc/self/fd/{fd}" for fd in held_by(pid, sentinel))

    volume.reset("/nowhere", flipped=False)
    yield run_stopped(body, look)
    assert found, "the process never held the sentinel: nothing would be attacked"
    for target in found:
        for flipped, times in ((False, 1), (True, 1), (False, 2)):
            for moment in range(MOMENTS):
                changes = Changes(volume.flip, range(moment, moment + times))
                volume.reset(target, flipped=flipped)
                yield run_stopped(body, changes)
                if not changes.seen:
                    break


class Changes:
    """Exchange the names before each of some calls of a process."""

    def __init__(self, flip: Callable[[], None], calls: range) -> None:
        self.flip = flip
        self.calls = calls
        self.seen = False

    def __call__(self, _: int, call: int) -> None:
        if call in self.calls:
            self.seen = True
            self.flip()


def held_by(pid: int, directory: Path) -> Iterator[str]:
    """Yield the numbers of a process's descriptors that are a directory."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if os.path.samestat(status, directory.stat()):
            yield fd


def start(bundle: Bundle, *args: str) -> str:
    """Return how a start ended: the exit code and what was written, or what was refused."""
    try:
        result = bundle.run(*args)
    except LaunchError as refused:
        return json.dumps([refused.kind, str(refused)])
    return json.dumps([result.code, result.stdout])


def prepare(bundle: Bundle, *mounts: dict[str, Any]) -> None:
    """Keep the sweep short: few mounts, no masks."""
    bundle.config["mounts"] = [PROC, *mounts]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []


def test_cve_2021_30465_and_2024_45310_mount_targets_in_a_volume_that_changes(
    tmp_path: Path, sentinel: Path
) -> None:
    """Directories and files that are mounted on, some there and some to be made."""
    volume = Volume(tmp_path / "volume")
    (sentinel / "b/c").mkdir(parents=True)
    (tmp_path / "data").write_text("data\n")

    def body(bundle: Bundle) -> None:
        prepare(
            bundle,
            bind("/other", sentinel),
            bind("/vol", volume.path),
            tmpfs("/vol/a/b/c"),
            bind("/vol/a/file", tmp_path / "data"),
            tmpfs("/vol/a/made/dir"),
        )
        codes = set()
        for answer in moments(
            volume, sentinel, lambda: start(bundle, "cat", "/proc/self/mountinfo")
        ):
            code, text = json.loads(answer)
            codes.add(code)
            points = [line.split(" ")[4] for line in text.splitlines() if code == 0]
            assert [point for point in points if point.startswith("/other/")] == []
        assert codes == {0, "setup"}

    attack(tmp_path, sentinel, body)


def test_cve_2026_55686_the_working_directory_of_a_volume_that_changes(
    tmp_path: Path, sentinel: Path
) -> None:
    volume = Volume(tmp_path / "volume")

    def body(bundle: Bundle) -> None:
        prepare(bundle, bind("/other", sentinel), bind("/vol", volume.path))
        bundle.process["cwd"] = "/vol/a/made/dir"
        codes = set()
        for answer in moments(volume, sentinel, lambda: start(bundle, "pwd")):
            code, text = json.loads(answer)
            codes.add(code)
            assert code != 0 or text.startswith("/vol/"), text
        assert codes == {0, "workdir"}

    attack(tmp_path, sentinel, body)


def test_cve_2024_21626_the_working_directory_of_an_exec_changes(
    tmp_path: Path, sentinel: Path
) -> None:
    """Standard input is the sentinel: a directory of the host's that the process does hold."""
    volume = Volume(tmp_path / "volume")

    def body(bundle: Bundle) -> None:
        prepare(bundle, bind("/vol", volume.path))
        volume.reset("/nowhere", flipped=False)
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
        codes = set()
        for answer in moments(
            volume, sentinel, lambda: execute(bundle, init, sentinel), "/proc/self/fd/0"
        ):
            code, text = json.loads(answer)
            codes.add(code)
            assert code != 0 or text.startswith("/vol/"), text
        assert codes == {0, "workdir"}
        os.kill(init.pid, 9)
        end(init)
        bundle.destroy()

    attack(tmp_path, sentinel, body)


def execute(bundle: Bundle, init: Any, stdin: Path) -> str:
    """Return how an exec in ``/vol/a`` ended, with a directory as its standard input."""
    directory_fd = os.open(stdin, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Capture() as capture:
            stdio = Stdio(directory_fd, capture.stdio.stdout, capture.stdio.stderr)
            running = bundle.start_exec(init, "pwd", stdio=stdio, process={"cwd": "/vol/a"})
            return json.dumps([end(running), capture.result(0).stdout])
    except LaunchError as refused:
        return json.dumps([refused.kind, str(refused)])
    finally:
        os.close(directory_fd)


def test_cve_2021_30465_and_2024_45310_while_the_host_s_tree_is_there(
    tmp_path: Path, sentinel: Path
) -> None:
    """With hooks the root is assembled before it is "/": here any link by name leads out."""
    volume = Volume(tmp_path / "volume")
    (sentinel / "b/c").mkdir(parents=True)
    (tmp_path / "data").write_text("data\n")

    def body(bundle: Bundle) -> None:
        prepare(
            bundle,
            bind("/vol", volume.path),
            tmpfs("/vol/a/b/c"),
            bind("/vol/a/file", tmp_path / "data"),
            tmpfs("/vol/a/made/dir"),
        )
        bundle.config["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
        codes = set()
        for answer in moments(volume, sentinel, lambda: start(bundle, "true"), str(sentinel)):
            codes.add(json.loads(answer)[0])
        assert codes >= {0, "setup"}

    attack(tmp_path, sentinel, body)


def test_cve_2025_52881_parameters_while_proc_changes_its_name(
    tmp_path: Path, sentinel: Path
) -> None:
    """What has the name /proc when they are written is the attacker's, who reaches the root."""

    def body(bundle: Bundle) -> None:
        prepare(bundle)
        bundle.linux["sysctl"] = {"kernel.msgmax": "4321"}
        proc, other = str(bundle.rootfs / "proc"), str(bundle.rootfs / "other")
        for place in (proc, other):
            (file := Path(place, "sys/kernel/msgmax")).parent.mkdir(parents=True)
            file.write_text("mine\n")
        for moment in range(MOMENTS):
            changes = Changes(lambda: exchange(proc, other), range(moment, moment + 1))
            code, _ = json.loads(run_stopped(lambda: start(bundle, "true"), changes))
            assert code == 0
            written = {Path(place, "sys/kernel/msgmax").read_text() for place in (proc, other)}
            assert written == {"mine\n"}
            if not changes.seen:
                break

    attack(tmp_path, sentinel, body)


@pytest.mark.parametrize(
    ("link", "target"),
    [("a", "{sentinel}"), ("a", "/proc/self/root/.."), ("a/b", "/nowhere"), ("a", "/etc/passwd")],
)
def test_cve_2026_55686_the_working_directory_is_made_inside_only(
    tmp_path: Path, sentinel: Path, link: str, target: str
) -> None:
    def body(bundle: Bundle) -> None:
        path = bundle.rootfs / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target.format(sentinel=sentinel))
        bundle.process["cwd"] = "/a/b"
        assert outcome(bundle, "true") in (0, "workdir")

    attack(tmp_path, sentinel, body)
