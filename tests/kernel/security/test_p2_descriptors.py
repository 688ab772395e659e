"""P2: a descriptor made through ctypes is close-on-exec, like those of the standard library."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from test_a13_a16_child import STARTER

from cais.linux import (
    inotify,
    memfd,
    mount,
    namespaces,
    paths,
    process,
    terminal,
    user_namespaces,
)
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINUX = Path(mount.__file__).parent
SOURCE = LINUX.parents[1]
# What returns numbers that are no descriptors.
NUMBERS = {
    *("bpf._Attr.get_u32", "bpf._number", "compiler._action", "compiler._flags"),
    *("credentials.bounding", "credentials.permitted", "files.find_number"),
    *("group.Cgroup.oom_kills", "v1.CgroupV1.oom_kills", "v2.CgroupV2.oom_kills"),
    *("inotify._checked", "inotify.Inotify.watch_directory", "library.architecture_token"),
    *("library.native_architecture", "library.newest_number", "library.resolve"),
    *("memfd._copied", "namespaces.kind_of", "namespaces.uid_outside", "whiteouts.device_of"),
    *("nftables.Nftables._call", "paths.filesystem_type"),
    *("siblings.Birth.address", "siblings.Birth.clone_sibling", "siblings.Birth.pid"),
    *("process.reap", "process.start_ticks", "profiles._version", "btrfs._subvolume_id"),
    *("file_data._next_extent", "tree_size.allocated_size", "tree_size.tree_size"),
    *("tree_size.tree_size_at",),
    *("prologue.number_of", "resources_v2.blkio_to_io_weight", "resources_v2.shares_to_weight"),
    *("resources_v2.swap_alone", "route._u32"),
    *("credentials.Capabilities.beyond", "messages.length", "personality.parse_personality"),
    *("process.fork", "process.pid_of", "signals.find_number", "syscalls.raising.call"),
    *("systemd.SystemdCgroup.oom_kills", "systemd_manager.Manager.version"),
    *("systemd_properties._number", "wire._end_of_type"),
}
# Parts of what is probed; os.open and os.eventfd (PEP 446); bpf(2) and seccomp(2), which always
# set the flag.
INDIRECT = {
    *("bpf._Attr.call", "bpf._open_program", "bpf.load_device_program", "memfd._create"),
    *("group.Cgroup.clone_fd", "group.Cgroup.oom_event_fd", "loader.load", "mount.finish"),
    *("nftables_changes.NftablesChanges.fileno", "paths._make_and_open"),
    *("v1.CgroupV1.oom_event_fd", "v2.CgroupV2.clone_fd", "v2.CgroupV2.oom_event_fd"),
}


def cloned() -> int:
    pid, pidfd = process.clone(0)
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    return pidfd


def inhabited() -> int:
    with user_namespaces.Inhabitant(namespaces.CLONE_NEWUTS) as inhabitant:
        return inhabitant.open("uts")


def terminals() -> tuple[int, int]:
    pts_fd = mount.new_mount("devpts", [("newinstance", None), ("ptmxmode", "0666")])
    try:
        return terminal.open_pair(pts_fd)
    finally:
        os.close(pts_fd)


def probes(directory: Path) -> dict[str, Callable[[], int | tuple[int, int]]]:
    """Return, for every function that makes a descriptor, how to make one."""
    root_fd = os.open(directory, os.O_PATH)
    return {
        "inotify.Inotify.fileno": lambda: inotify.Inotify().fileno(),
        "memfd.sealed_bytes": lambda: memfd.sealed_bytes(b"x"),
        "memfd.sealed_copy": lambda: memfd.sealed_copy("/bin/busybox"),
        "mount.clone_tree": lambda: mount.clone_tree(str(directory)),
        "mount.new_mount": lambda: mount.new_mount("tmpfs"),
        "namespaces.open_time_offsets": namespaces.open_time_offsets,
        "mount.open_context": lambda: mount.open_context("tmpfs"),
        "paths.create_file": lambda: paths.create_file(root_fd, "new"),
        "paths.ensure_directory": lambda: paths.ensure_directory(root_fd, "a/b"),
        "paths.ensure_file": lambda: paths.ensure_file(root_fd, "c/d"),
        "paths.open_at": lambda: paths.open_at(root_fd, ".", os.O_PATH, resolve=0),
        "paths.open_in_root": lambda: paths.open_in_root(root_fd, "/"),
        "process.clone": cloned,
        "process.copy_descriptor": lambda: process.copy_descriptor(
            os.pidfd_open(os.getpid()), root_fd
        ),
        "terminal.open_pair": terminals,
        "user_namespaces.Inhabitant.open": inhabited,
        "user_namespaces.make_user_namespace": lambda: user_namespaces.make_user_namespace(
            [(0, 100000, 1)], [(0, 100000, 1)]
        ),
    }


def returning_numbers() -> Iterator[str]:
    """Yield every function of the room that returns an int, or two."""
    for path in sorted(LINUX.rglob("*.py")):
        yield from _returning_numbers(ast.parse(path.read_text()), path.stem)


def _returning_numbers(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            yield from _returning_numbers(child, name)
            returns = getattr(child, "returns", None)
            if returns and ast.unparse(returns) in ("int", "int | None", "tuple[int, int]"):
                yield name
        else:
            yield from _returning_numbers(child, prefix)


def test_every_wrapper_is_probed(tmp_path: Path) -> None:
    """A new function that returns a number has to be put into one of the three lists."""
    assert set(returning_numbers()) == NUMBERS | INDIRECT | set(probes(tmp_path))


def test_every_wrapper_s_descriptor_is_closed_on_exec(tmp_path: Path) -> None:
    def body() -> None:
        import fcntl

        inheritable = []
        for name, probe in probes(tmp_path).items():
            made = probe()
            for fd in (made,) if isinstance(made, int) else made:
                assert fd > 2, name
                if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    inheritable.append(name)
        assert inheritable == []

    isolated(body, leftovers=False)  # they go with the process


MAKES = re.compile(
    r"(openat2?|open|socket|socketpair|pipe2|pipe|memfd_create|open_tree|fsopen|fsmount|dup3"
    r"|epoll_create1?|inotify_init1|eventfd2|accept4|timerfd_create|signalfd4)\("
)


def test_no_call_of_a_start_or_an_exec_leaves_it_out(tmp_path: Path) -> None:
    """The same from outside: every descriptor the runtime makes, by whatever way."""

    def body() -> None:
        import json

        (tmp_path / "b").mkdir()
        bundle = Bundle(tmp_path / "b")
        bundle.process["args"] = ["sleep", "60"]
        bundle.save()
        document = {"process": {**bundle.process, "args": ["true"]}, "user": "nobody"}
        (bundle.path / "exec-1.json").write_text(json.dumps(document))
        (bundle.path / "bad.json").write_text(json.dumps({**document, "user": "stranger"}))
        log = tmp_path / "strace"
        subprocess.run(
            [
                *(
                    "strace",
                    "-f",
                    "-qq",
                    "-o",
                    log,
                    "-e",
                    "trace=%desc,%network,memfd_create,execve",
                ),
                *(sys.executable, "-c", STARTER, SOURCE, bundle.path, bundle.id),
            ],
            check=True,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )
        programs: set[str] = set()
        seen: set[str] = set()
        forgotten = []
        ours = False  # the interpreter's own beginning is not
        for line in log.read_text().splitlines():
            pid, _, call = line.partition(" ")
            call = call.strip()
            made = MAKES.match(call)
            ours = ours or f"{SOURCE}/cais" in call
            if call.startswith("execve(") and '"/bin/' in call:
                programs.add(pid)  # the container's own program from here on
            elif ours and made and pid not in programs and " = -1 " not in call:
                seen.add(made[1])
                if "CLOEXEC" not in call:
                    forgotten.append(call)
        assert {"openat2", "fsopen", "fsmount", "open_tree"} <= seen, seen
        assert forgotten == [], "\n".join(forgotten)

    isolated(body, timeout_s=60)
