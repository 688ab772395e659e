"""Run a test body in a child with namespaces of its own, and fail if it leaves anything behind.

What is compared before and after the body: the mount table, the open descriptors, the child
processes (orphans come back to the child, a subreaper) and, on request, other host state.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from io import RawIOBase
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_CHILD_SUBREAPER = 36
CGROUP_ROOT = Path("/sys/fs/cgroup")
PATIENCE = float(os.environ.get("CAIS_TEST_PATIENCE", "1"))
"""How much slower than others this machine is: an emulated one says so."""

_libc = ctypes.CDLL(None, use_errno=True)


class IsolatedBodyError(AssertionError):
    """The body failed or left something behind; the text is the child's traceback."""


def isolated(
    body: Callable[[], None], *, net: bool = True, timeout_s: float = 100, leftovers: bool = True
) -> None:
    """Run ``body`` in a forked child with its own mount (and network) namespace.

    The child is a subreaper in a session of its own; whatever it leaves running is killed.

    Args:
        body: called with no argument; must not return with mounts, descriptors or children left.
        net: also a network namespace of its own, with nothing but a down ``lo``.
        timeout_s: after this (times ``PATIENCE``) the child and all below it are killed and the
            test fails.
        leftovers: compare mounts, descriptors and children before and after.

    Raises:
        IsolatedBodyError: with the child's traceback.

    """
    read_fd, write_fd = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if (pid := os.fork()) == 0:
        os.close(read_fd)
        _child(body, write_fd, net=net, leftovers=leftovers)
    os.close(write_fd)
    with open(read_fd, "rb", buffering=0) as report:
        failure = _end_of(pid, timeout_s * PATIENCE) + _reported(report)
    if failure:
        raise IsolatedBodyError(failure)


def _child(body: Callable[[], None], report_fd: int, *, net: bool, leftovers: bool) -> None:
    """Run the body and report; whatever happens, the child never returns into pytest."""
    try:
        failure = _failure_of(body, net=net, leftovers=leftovers)
        os.write(report_fd, failure.encode()[:60000])
    finally:
        os._exit(0)


def _failure_of(body: Callable[[], None], *, net: bool, leftovers: bool) -> str:
    failure = ""
    try:
        enter_namespaces(net=net)
        before = left_behind()
        body()
        if leftovers:
            failure = _difference(before, left_behind())
    except BaseException:  # noqa: BLE001 - of any kind: it is told to the parent
        failure = traceback.format_exc()
    try:
        kill_children()
    except OSError:  # the body left no descriptor to look with
        failure += traceback.format_exc()
    return failure


def enter_namespaces(*, net: bool) -> None:
    """Leave the caller's mount (and network) namespace; become session leader and subreaper."""
    os.setsid()
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
    _check(_libc.unshare(CLONE_NEWNS | (CLONE_NEWNET if net else 0)), "unshare")
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")


def left_behind() -> Mapping[str, set[str]]:
    """Return what a body could leave: mounts, descriptors and children of this process."""
    fds = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            fds.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = {_without_shared_options(line.split(" ", 1)[1]) for line in lines}
    return {"mounts": mounts, "descriptors": fds, "children": set(map(str, children()))}


def _without_shared_options(mount: str) -> str:
    """Leave out the options that all mounts of cgroup2 share: runc 1.1 and CRIU give it others."""
    place, cgroup2, _ = mount.partition(" - cgroup2 ")
    return place + cgroup2 if cgroup2 else mount


def children() -> Iterator[int]:
    """Yield the pids of this process's children (proc(5), ``/proc/<pid>/task/<tid>/children``)."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    yield from map(int, listing.split())


def kill_children(deadline_s: float = 60) -> None:
    """Kill every child, and the orphans that arrive as they die, until none is left."""
    end = time.monotonic() + deadline_s
    while (pids := list(children())) and time.monotonic() < end:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for _ in pids:  # in any order: the first of a pid namespace waits for those born inside
            os.waitpid(-1, 0)


def cgroups_named(part: str) -> set[Path]:
    """Return the cgroup directories, in every hierarchy, with ``part`` in their name."""
    return {path for path in groups_below(CGROUP_ROOT) if part in path.name}


def remove_cgroups(name: str) -> None:
    """Remove the groups called ``name`` at the top of every hierarchy, and those below them."""
    everything = _groups_called(name)
    for path in sorted(everything, key=lambda path: len(path.parts), reverse=True):
        for _ in range(50):  # a killed process leaves its cgroup a moment after its death
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
            else:
                break


def thaw_cgroups(name: str) -> None:
    """Let go of what a killed daemon has paused in these groups: frozen, nothing dies."""
    for path in _groups_called(name):
        for file, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError):
                (path / file).write_text(text)


def _groups_called(name: str) -> list[Path]:
    parents = [*CGROUP_ROOT.glob(name), *CGROUP_ROOT.glob(f"*/{name}")]
    return [*parents, *(path for parent in parents for path in groups_below(parent))]


def groups_below(directory: Path) -> Iterator[Path]:
    """Yield the directories below one; any may go away meanwhile, where ``glob`` would raise."""
    for parent, names, _ in os.walk(directory):
        for name in names:
            yield Path(parent, name)


def _difference(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> str:
    lines = [
        f"left behind: {kind}: {item}"
        for kind in before
        for item in sorted(after[kind] - before[kind])
    ]
    return "\n".join(lines)


def _end_of(pid: int, timeout_s: float) -> str:
    """Wait for the child and reap it; return what was wrong with its end.

    It does not outlive this call: not the deadline, not an exception (the test's own time limit,
    Ctrl-C) either.
    """
    end = time.monotonic() + timeout_s
    pidfd = os.pidfd_open(pid)
    is_over = False
    try:
        while not (is_over := _has_ended(pidfd)) and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        if not is_over:
            kill_tree(pid)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
    if not is_over:
        return f"the isolated body did not end within {timeout_s} s\n"
    return f"the isolated child ended with status {status:#x}\n" if status else ""


def kill_tree(pid: int) -> None:
    """Kill a child, a subreaper, and everything below it; the child is left to be reaped."""
    os.kill(pid, signal.SIGSTOP)  # it makes no new ones
    while living := [child for child in _descendants(pid) if is_alive(child)]:
        for child in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
                yield from _descendants(int(child))


def is_alive(pid: int) -> bool:
    """Say whether there is such a process, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _has_ended(pidfd: int) -> bool:
    return os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reported(report: RawIOBase) -> str:
    """Return the child's report; what else holds its pipe open does not matter."""
    os.set_blocking(report.fileno(), False)
    chunks = []
    while chunk := report.read(65536):
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="replace")


def _check(result: int, step: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{step}: {os.strerror(code)}")
