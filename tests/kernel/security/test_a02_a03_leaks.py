"""A2 and A3: descriptors and processes of the host are out of a container's reach."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest
from python_inside import lend, needs_x86_64

from cais.runtime import container as runtime
from cais.runtime import foreign_proc
from cais.runtime.launch import Launch, LaunchError, Running
from cais.testing.bundles import Bundle, Capture, end, wait
from cais.testing.isolation import isolated
from cais.testing.stopped_calls import run_stopped
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SCAN = """
while [ ! -e /go ]; do sleep 0.01; done
for p in /proc/[0-9]*; do
  [ $p = /proc/1 ] || [ $p = /proc/$$ ] && continue
  echo "EXE $(readlink $p/exe)"
  for l in $p/cwd $p/root $p/fd/*; do echo "LINK $(readlink $l)"; done
  grep -E 'CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp:|NSpid' $p/status
  ls $p/map_files | wc -l
done
touch /done
sleep 60
"""
DEFAULT_MASK = 0xA80425FB
PTRACE = 1 << 19


@pytest.mark.parametrize("form", ["/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/proc/1/fd/{}"])
def test_cve_2024_21626_no_working_directory_through_a_descriptor(
    tmp_path: Path, form: str
) -> None:
    def body() -> None:
        host_fd = os.open("/etc", os.O_PATH | os.O_DIRECTORY)
        os.set_inheritable(host_fd, True)
        bundle = Bundle(tmp_path)
        for number in range(3, 40):
            bundle.process["cwd"] = form.format(number)
            with pytest.raises(LaunchError) as refused:
                bundle.run("true")
            assert refused.value.kind == "workdir"
            assert refused.value.message.startswith(f'chdir to cwd ("{form.format(number)}")')
        (bundle.rootfs / "link").symlink_to(form.format(host_fd))
        bundle.process["cwd"] = "/link"
        with pytest.raises(LaunchError):
            bundle.run("true")
        bundle.process["cwd"] = "/"
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            for number in range(3, 12):
                with pytest.raises(LaunchError):
                    bundle.execute(init, "true", process={"cwd": form.format(number)})
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            end(init)
            bundle.destroy()
        os.close(host_fd)

    isolated(body, timeout_s=90)


def held_exec(bundle: Bundle, init: Running, streams: Capture) -> Launch:
    """Begin an exec and leave its process inside before execve, waiting for the parent's word."""
    document = bundle.path / "exec.json"
    document.write_text(json.dumps({"process": {**bundle.process, "args": ["sleep", "9"]}}))
    launch = runtime.begin_exec(
        bundle.id, str(bundle.path), str(document), init.pidfd, stdio=streams.stdio
    )
    select.select([launch], [], [], PATIENCE_S)
    return launch


def test_cve_2016_9962_an_exec_in_progress_has_nothing_to_take(tmp_path: Path) -> None:
    """The worst case: the container has CAP_SYS_PTRACE, so it may read any process it sees.

    What it sees of an exec before execve is no more than it has itself: its own root and files, a
    sealed program, its own capabilities and filter.
    """
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    }

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["seccomp"] = profile
        for name in ("bounding", "permitted", "effective"):
            capabilities = bundle.process["capabilities"]
            capabilities[name] = [*capabilities[name], "CAP_SYS_PTRACE"]
        with Capture() as capture, Capture() as streams:
            init = bundle.start("sh", "-c", SCAN, stdio=capture.stdio)
            launch = held_exec(bundle, init, streams)
            (bundle.rootfs / "go").touch()
            wait_until((bundle.rootfs / "done").exists)
            stop(wait(launch))
            stop(init)
            bundle.destroy()
            lines = capture.result(0).stdout.splitlines()
        exes = [line for line in lines if line.startswith("EXE ")]
        assert len(exes) == 1  # one process was seen, and it was ours
        links = {line.removeprefix("LINK ") for line in lines if line.startswith("LINK ")}
        assert {link.split(":")[0] for link in links} <= {"/", "/dev/null", "/memfd", "socket"}
        facts = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert int(facts["CapPrm"], 16) == int(facts["CapBnd"], 16) == DEFAULT_MASK | PTRACE
        assert facts["Seccomp"] == "2"
        assert len(facts["NSpid"].split()) == 1  # no other pid namespace is shown inside

    isolated(body)


def test_cve_2016_9962_a_start_in_anothers_pid_namespace_has_nothing_to_take(
    tmp_path: Path,
) -> None:
    """The same for ``--pid container:...``: who is in the namespace already may have SYS_PTRACE."""

    def body() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        for name in ("bounding", "permitted", "effective"):
            capabilities = first.process["capabilities"]
            capabilities[name] = [*capabilities[name], "CAP_SYS_PTRACE"]
        second.process["args"] = ["sh", "-c", "sleep 9; true"]
        with Capture() as capture, Capture() as streams:
            init = first.start("sh", "-c", SCAN, stdio=capture.stdio)
            namespace = f"/proc/{init.pid}/ns/pid"
            second.linux["namespaces"].remove({"type": "pid"})
            second.linux["namespaces"].append({"type": "pid", "path": namespace})
            second.save()
            launch = runtime.begin(second.id, str(second.path), stdio=streams.stdio)
            select.select([launch], [], [], PATIENCE_S)
            (first.rootfs / "go").touch()
            wait_until((first.rootfs / "done").exists)
            running = wait(launch)
            assert os.stat(f"/proc/{running.pid}/ns/pid") == os.stat(namespace)
            inside = os.listdir(f"/proc/{running.pid}/root/proc")
            visible = [name for name in inside if name.isdigit()]
            stop(running)
            stop(init)
            for bundle in (first, second):
                bundle.destroy()
            lines = capture.result(0).stdout.splitlines()
        assert [line for line in lines if line.startswith("EXE ")] == ["EXE " + own_program()]
        assert 2 <= len(visible) <= 5  # the other container's processes, and no more
        links = {line.removeprefix("LINK ") for line in lines if line.startswith("LINK ")}
        assert {link.split(":")[0] for link in links} <= {"/", "/dev/null", "/memfd", "socket"}
        facts = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert int(facts["CapPrm"], 16) == int(facts["CapBnd"], 16) == DEFAULT_MASK

    isolated(body)


def test_cve_2016_9962_who_makes_proc_from_inside_shows_no_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.18 a process is born inside for one call; it is looked at before that call."""
    monkeypatch.setattr(foreign_proc, "knows_option", lambda: False)
    seen = []

    def look(pid: int, _: int) -> None:
        if namespace and os.stat(f"/proc/{pid}/ns/pid") == os.stat(namespace[0]):
            links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            seen.append((os.listdir(f"/proc/{pid}/root"), os.listdir(f"/proc/{pid}/cwd"), links))

    namespace: list[str] = []

    def body() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        with Capture() as capture:
            init = first.start("sleep", "60", stdio=capture.stdio)
        namespace.append(f"/proc/{init.pid}/ns/pid")
        second.linux["namespaces"].remove({"type": "pid"})
        second.linux["namespaces"].append({"type": "pid", "path": namespace[0]})
        assert run_stopped(lambda: second.run("ls", "/bin/sh").stdout, look, ["fsopen"])
        stop(init)
        first.destroy()
        assert len(seen) == 1
        root, directory, links = seen[0]
        assert (root, directory) == ([], [])
        assert all(link.startswith("socket:") for link in links)

    isolated(body)


def test_an_exec_in_progress_cannot_be_read_without_sys_ptrace(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with Capture() as capture, Capture() as streams:
            init = bundle.start("sh", "-c", SCAN, stdio=capture.stdio)
            launch = held_exec(bundle, init, streams)
            (bundle.rootfs / "go").touch()
            wait_until((bundle.rootfs / "done").exists)
            stop(wait(launch))
            stop(init)
            bundle.destroy()
            lines = capture.result(0).stdout.splitlines()
        assert [line for line in lines if line.startswith("EXE")] == ["EXE "]
        assert {line for line in lines if line.startswith("LINK")} == {"LINK "}

    isolated(body)


TOUCH = """
import sys, time
while not os.path.exists("/go"):
    time.sleep(0.01)
others = [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
found = []
for pid in others:
    buffer = ctypes.create_string_buffer(8)
    here, there = Part(ctypes.addressof(buffer), 8), Part(0x400000, 8)
    pidfd = os.pidfd_open(pid)
    found.append([call(101, 0x4206, pid, 0, 0), call(101, 16, pid, 0, 0), call(438, pidfd, 0, 0),
                  call(310, pid, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0)])
print(json.dumps(found), flush=True)
open("/done", "w").close()
time.sleep(60)
"""


@needs_x86_64
def test_cve_2016_9962_an_exec_in_progress_cannot_be_traced_or_read_call_by_call(
    tmp_path: Path,
) -> None:
    """PTRACE_SEIZE, PTRACE_ATTACH, pidfd_getfd, process_vm_readv; there is no filter here."""

    def body() -> None:
        bundle = Bundle(tmp_path)
        command = lend(bundle, TOUCH)
        with Capture() as capture, Capture() as streams:
            init = bundle.start(*command, stdio=capture.stdio)
            launch = held_exec(bundle, init, streams)
            (bundle.rootfs / "go").touch()
            wait_until((bundle.rootfs / "done").exists)
            stop(wait(launch))
            stop(init)
            bundle.destroy()
            result = capture.result(0)
        assert json.loads(result.stdout) == [["EPERM"] * 4], result.stderr

    isolated(body)


def own_program() -> str:
    return os.readlink("/proc/self/exe")


def stop(process: Running) -> None:
    signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
    end(process)
