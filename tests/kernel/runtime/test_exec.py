"""Kernel tests of exec: a process that joins a running container."""

from __future__ import annotations

import re
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import ConflictError
from cais.runtime import container as runtime
from cais.runtime.launch import LaunchError, Running
from cais.testing.bundles import Bundle, Capture, end, read_terminal
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def running(bundle: Bundle) -> Iterator[Running]:
    """A container that sleeps; gone at the end."""
    with Capture() as capture:
        init = bundle.start("sleep", "60", stdio=capture.stdio)
        try:
            yield init
        finally:
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            end(init)
            bundle.destroy()


def in_container(path: Path, body: Callable[[Bundle, Running], None], **linux: Any) -> None:
    def isolated_body() -> None:
        bundle = Bundle(path)
        bundle.linux.update(linux)
        with running(bundle) as init:
            body(bundle, init)

    isolated(isolated_body)


def test_the_process_is_inside_every_namespace_and_the_cgroup(tmp_path: Path) -> None:
    def body(bundle: Bundle, init: Running) -> None:
        script = (
            "for n in mnt pid net uts ipc; do"
            " test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) && echo $n; done;"
            "hostname; cat /proc/self/cgroup; ps"
        )
        result = bundle.execute(init, "sh", "-c", script)
        assert result.stdout.split()[:6] == ["mnt", "pid", "net", "uts", "ipc", "box"]
        assert re.search(rf"^\d+:(memory)?:/cais/{bundle.id}$", result.stdout, re.MULTILINE)
        assert "sleep 60" in result.stdout

    in_container(tmp_path, body)


def test_exit_code_environment_and_session(tmp_path: Path) -> None:
    def body(bundle: Bundle, init: Running) -> None:
        assert bundle.execute(init, "sh", "-c", "exit 42").code == 42
        result = bundle.execute(init, "env", process={"env": [*bundle.process["env"], "X=1"]})
        assert result.stdout.split() == [*bundle.process["env"], "X=1", "HOME=/root"]
        stat = bundle.execute(init, "cat", "/proc/self/stat").stdout.split()
        assert stat[0] == stat[4] == stat[5]  # process group and session of its own

    in_container(tmp_path, body)


def test_terminal(tmp_path: Path) -> None:
    def body(bundle: Bundle, init: Running) -> None:
        process = bundle.start_exec(
            init, "sh", "-c", "tty; stty size; echo said > /dev/tty", stdio=None, size=(20, 30)
        )
        assert process.terminal_fd is not None
        assert read_terminal(process.terminal_fd).split() == ["/dev/pts/0", "20", "30", "said"]
        assert end(process) == 0

    in_container(tmp_path, body)


@pytest.mark.parametrize(
    ("args", "process", "kind", "message"),
    [
        (["nosuch"], {}, "not-found", 'exec: "nosuch": executable file not found in $PATH'),
        (
            ["true"],
            {"cwd": "/nope"},
            "workdir",
            'chdir to cwd ("/nope") set in config.json failed: no such file or directory',
        ),
    ],
)
def test_what_cannot_be_executed(
    tmp_path: Path, args: list[str], process: dict[str, Any], kind: str, message: str
) -> None:
    def body(bundle: Bundle, init: Running) -> None:
        with pytest.raises(LaunchError) as failed:
            bundle.execute(init, *args, process=process)
        assert (failed.value.kind, failed.value.message) == (kind, message)

    in_container(tmp_path, body)


def test_a_container_that_has_ended(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with Capture() as capture:
            init = bundle.start("true", stdio=capture.stdio)
            signal.pidfd_send_signal(init.pidfd, 0)
            import os

            os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
            with pytest.raises(ConflictError, match="is not running"):
                bundle.execute(init, "true")
            os.close(init.pidfd)
            bundle.destroy()

    isolated(body)


def test_pause_stops_and_resume_continues(tmp_path: Path) -> None:
    def body(bundle: Bundle, init: Running) -> None:
        group = runtime.cgroup_of(bundle.id, str(bundle.path))
        runtime.pause(bundle.id, str(bundle.path))
        assert group.is_frozen()
        runtime.resume(bundle.id, str(bundle.path))
        assert not group.is_frozen()
        assert bundle.execute(init, "true").code == 0

    in_container(tmp_path, body)


def test_update_changes_a_limit(tmp_path: Path) -> None:
    def body(bundle: Bundle, _: Running) -> None:
        runtime.update(bundle.id, str(bundle.path), {"pids": {"limit": 17}})
        group = runtime.cgroup_of(bundle.id, str(bundle.path))
        assert group.stats()["pids"]["limit"] == 17

    in_container(tmp_path, body)


def test_filter_applies_to_exec_and_allows_what_it_needs(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ],
    }

    def body(bundle: Bundle, init: Running) -> None:
        result = bundle.execute(init, "sh", "-c", "mkdir /x; grep Seccomp: /proc/self/status")
        assert result.stdout.split() == ["Seccomp:", "2"]
        assert "Operation not permitted" in result.stderr

    in_container(tmp_path, body, seccomp=profile)


def test_a_filter_without_clone_is_said_to_forbid_exec(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clone", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}],
    }

    def body(bundle: Bundle, init: Running) -> None:
        with pytest.raises(LaunchError, match="a seccomp profile that allows clone"):
            bundle.execute(init, "true")

    in_container(tmp_path, body, seccomp=profile)
