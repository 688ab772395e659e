"""A2 and A3: descriptors and processes of the host are out of a container's reach."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import select
import signal
from errno import EFAULT, EPERM
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from docker_bundle import give_user_namespace
from python_inside import lend, needs_x86_64

from cais.linux import mount
from cais.linux.process import FORK_FLAGS
from cais.linux.seccomp import load
from cais.runtime import container as runtime
from cais.runtime import foreign_proc
from cais.runtime.channel import open_channel
from cais.runtime.launch import Launch, LaunchError, Running
from cais.testing.bundles import Bundle, Capture, end, wait
from cais.testing.isolation import isolated
from cais.testing.nursery import nursery
from cais.testing.stopped_calls import run_stopped
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
NO_CHANGES: dict[str, Any] = {}
DEFAULT_MASK = 0xA80425FB
PTRACE, SYS_ADMIN = 1 << 19, 1 << 21


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


def held_exec(
    bundle: Bundle, init: Running, streams: Capture, changes: Mapping[str, Any] = NO_CHANGES
) -> Launch:
    """Begin an exec and leave its process inside before execve, waiting for the parent's word."""
    document = bundle.path / "exec.json"
    process = {**bundle.process, "args": ["sleep", "9"], **changes}
    document.write_text(json.dumps({"process": process}))
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


@pytest.mark.parametrize("what", ["exec", "start"])
@pytest.mark.parametrize(
    "changes",
    [
        NO_CHANGES,
        {"scheduler": {"policy": "SCHED_BATCH"}, "execCPUAffinity": {"initial": "0"}},
        {"env": ["HOME=/", "PATH=/bin", *(f"LONG_{number}={'x' * 100000}" for number in range(3))]},
    ],
    ids=["plain", "scheduled", "long"],
)
def test_cve_2016_9962_nothing_of_another_container_is_in_the_memory(
    tmp_path: Path, what: str, changes: dict[str, Any]
) -> None:
    """Of what is born inside, by who holds the documents of all; no spare waits."""

    def body() -> None:
        for name in ("one", "two", "other"):
            (tmp_path / name).mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        other = Bundle(tmp_path / "other", "other")
        with nursery(), Capture() as capture, Capture() as streams:
            secret = secrets.token_hex(16)  # made now: the nursery must not know it
            other.process["env"].append(f"SECRET={secret}")
            init = first.start("sleep", "60", stdio=capture.stdio)
            holder = other.start("sleep", "60", stdio=capture.stdio)
            if what == "exec":
                launch = held_exec(first, init, streams, changes)
            else:
                second.process.update(changes)
                launch = held_start(second, init, streams)
            (inside,) = [pid for pid in launch.children if is_in_namespace_of(pid, init)]
            found = memory_of(inside)
            documents = memory_of(os.getpid())
            for process in (wait(launch), holder, init):
                stop(process)
            for bundle in (first, other) if what == "exec" else (second, first, other):
                bundle.destroy()
        assert documents.count(secret.encode())
        assert found.count(b"HOME=")  # its own
        assert not found.count(secret.encode())

    isolated(body)


def held_start(bundle: Bundle, init: Running, streams: Capture) -> Launch:
    """Begin a start in another's pid namespace and leave it where ``held_exec`` does."""
    bundle.process["args"] = ["sleep", "9"]
    bundle.join("pid", f"/proc/{init.pid}/ns/pid")
    bundle.save()
    launch = runtime.begin(bundle.id, str(bundle.path), stdio=streams.stdio)
    select.select([launch], [], [], PATIENCE_S)
    return launch


def join_user_namespace(bundle: Bundle, init: Running) -> None:
    give_user_namespace(bundle)  # its root's owner
    for name in ("uidMappings", "gidMappings"):
        del bundle.linux[name]
    bundle.join("user", f"/proc/{init.pid}/ns/user")


def is_in_namespace_of(pid: int, init: Running) -> bool:
    return os.stat(f"/proc/{pid}/ns/pid") == os.stat(f"/proc/{init.pid}/ns/pid")


def memory_of(pid: int) -> bytes:
    """Return all that can be read and written of a process's memory."""
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, access = line.split()[:2]
            if access.startswith("rw"):
                start, end = (int(each, 16) for each in place.split("-"))
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"".join(parts)


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
            second.join("pid", namespace)
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
    """Before Linux 6.18 a process is born inside for one call, with nothing from its birth on.

    It is looked at before that call, and before it whoever clones a process into the namespace.
    """
    monkeypatch.setattr(foreign_proc, "knows_option", lambda: False)
    inside: list[Looks] = []
    makers: list[Looks] = []

    def look(pid: int, _: int) -> None:
        if os.stat(f"/proc/{pid}/ns/pid") == os.stat(namespace[0]):
            inside.append(Looks(pid))

    def look_at_maker(pid: int, _: int) -> None:
        children = os.readlink(f"/proc/{pid}/ns/pid_for_children")
        if children == os.readlink(namespace[0]):
            makers.append(Looks(pid))

    namespace: list[str] = []

    def body() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        with Capture() as capture:
            init = first.start("sleep", "60", stdio=capture.stdio)
        namespace.append(f"/proc/{init.pid}/ns/pid")
        second.join("pid", namespace[0])
        for calls, at_call in ((["fsopen"], look), (["clone", "clone3"], look_at_maker)):
            assert run_stopped(lambda: second.run("ls", "/bin/sh").stdout, at_call, calls)
        stop(init)
        first.destroy()
        # One makes the process that makes proc, the other the container's.
        assert (len(inside), len(makers)) == (1, 2)
        assert makers[1].capabilities == {DEFAULT_MASK}
        filters = int(status_of(os.getpid())["Seccomp_filters"]) + 1  # with that of run_stopped
        for process in (inside[0], makers[0]):
            assert (process.root, process.directory) == ([], [])
            assert process.files <= {"socket"}
            assert process.capabilities == {SYS_ADMIN}
            assert process.filters == filters + 1

    isolated(body)


class Looks:
    """What there is to take of a process."""

    def __init__(self, pid: int) -> None:
        self.root, self.directory = os.listdir(f"/proc/{pid}/root"), os.listdir(f"/proc/{pid}/cwd")
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        self.files = {link.partition(":")[0] for link in links}
        facts = status_of(pid)
        self.capabilities = {int(facts[name], 16) for name in ("CapPrm", "CapEff")}
        self.filters = int(facts["Seccomp_filters"])


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@needs_x86_64
def test_who_makes_proc_from_inside_may_do_nothing_else() -> None:
    """Its calls, as somebody could make it do them who traces it."""
    calls = {
        "open": (2, 0),
        "socket": (41, 0),
        "recvmsg": (47, 0),
        "execve": (59, 0),
        "ptrace": (101, 0),
        "mount": (165, 0),
        "keyctl": (250, 0),
        "unshare": (272, 0),
        "setns": (308, 0),
        "bpf": (321, 0),
        "open_tree": (428, 0),
        "fsconfig": (431, 0),
        "fsmount": (432, 0),
        "clone3": (435, 0),
        "openat2": (437, 0),
        "pidfd_getfd": (438, 0),
        "fsopen of x32": (430 | 0x40000000, 0),
        "clone to a new user namespace": (56, 0x10000000 | FORK_FLAGS),
        "clone of a sibling": (56, 0x8000 | FORK_FLAGS),
    }

    def body() -> None:
        ours, theirs = open_channel()
        if (pid := os.fork()) == 0:
            call = ctypes.CDLL(None, use_errno=True).syscall
            load(foreign_proc.compile_filter())
            failures = {name: refused(call, *facts) for name, facts in calls.items()}
            theirs.send({"fsopen": refused(call, 430), "failures": failures})
            os._exit(0)
        os.waitpid(pid, 0)
        assert ours.receive()[0] == {"fsopen": EFAULT, "failures": dict.fromkeys(calls, EPERM)}
        ours.close()
        theirs.close()

    isolated(body)


def refused(call: Callable[..., int], number: int, argument: int = 0) -> int:
    """Return the errno of a call; 0: it is done."""
    return ctypes.get_errno() if call(number, argument, 0, 0, 0, 0) < 0 else 0


def test_what_is_handed_out_for_proc_is_no_other_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.18: as if somebody had made who makes proc open another."""
    monkeypatch.setattr(foreign_proc, "knows_option", lambda: False)
    honest = mount.open_context
    monkeypatch.setattr(
        mount, "open_context", lambda kind: honest("tmpfs" if kind == "proc" else kind)
    )

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.join("pid", "/proc/self/ns/pid")
        with pytest.raises(LaunchError, match="has put another in its place"):
            bundle.run("true")

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


@pytest.mark.parametrize("what", ["exec", "start"])
def test_cve_2016_9962_in_a_user_namespace_sys_ptrace_does_not_help(
    tmp_path: Path, what: str
) -> None:
    """The memory of what is born inside belongs to the host's user namespace until execve."""

    def body() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        give_user_namespace(first)
        for name in ("bounding", "permitted", "effective"):
            capabilities = first.process["capabilities"]
            capabilities[name] = [*capabilities[name], "CAP_SYS_PTRACE"]
        with Capture() as capture, Capture() as streams:
            init = first.start("sh", "-c", SCAN, stdio=capture.stdio)
            if what == "exec":
                launch = held_exec(first, init, streams)
            else:
                join_user_namespace(second, init)
                launch = held_start(second, init, streams)
            assert [pid for pid in launch.children if is_in_namespace_of(pid, init)]
            (first.rootfs / "go").touch()
            wait_until((first.rootfs / "done").exists)
            stop(wait(launch))
            stop(init)
            for bundle in (first,) if what == "exec" else (second, first):
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
