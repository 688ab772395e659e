"""Kernel tests of processes cloned ahead: what becomes of one is what any other start makes.

A start that takes a spare is compared with one that clones; a spare itself holds nothing, ends
with its owner, and is left alone by documents it does not fit.
"""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.linux import cgroups, mount, namespaces, process
from cais.linux.syscalls import KernelError
from cais.runtime import channel, spares
from cais.runtime import container as runtime
from cais.runtime import nursery as made
from cais.runtime.launch import LaunchError
from cais.runtime.nursery import Nursery, Spare
from cais.testing.bundles import Bundle, Capture, Result, end, read_terminal
from cais.testing.isolation import cgroups_named, children, is_alive, isolated
from cais.testing.nursery import nursery
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.launch import Launch, Running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CLONE_FS = 0x00000200
PTRACE_EVENT_VFORK_DONE = 5
ENTERS_BY_CLONE = cgroups.detect().version == 2
TELL = (
    "id; pwd; umask; env; hostname; ulimit -a; cat /proc/self/cgroup /proc/self/oom_score_adj;"
    "grep -E 'Cap|Cpus_|Seccomp:|NoNewPrivs|SigB|SigI|SigC|Groups|PPid' /proc/$$/status;"
    "cut -d' ' -f19,41 /proc/$$/stat;"  # niceness and policy
    "ls /proc/$$/fd; ls -a / /sys/fs/cgroup; ls -dn /o*;"
    "ls -ln /dev | sed 's/ [A-Z][a-z]* *[0-9]* [0-9:]* / /';"  # whatever minute it is
    "sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo; ip addr show lo; cat /etc/hosts;"
)
LONG = [f"LONG_{number}={'x' * 100000}" for number in range(3)]  # no packet holds them
TELL_FIRST = TELL + "ps; cut -d' ' -f1,6,7,8 /proc/1/stat; wc -l </proc/keys"


def forbid_clones(patch: pytest.MonkeyPatch) -> None:
    """Have what is begun from now on take a spare or fail."""
    clone = process.clone

    def clone_inhabitant(flags: int) -> tuple[int, int]:
        assert flags == namespaces.CLONE_NEWUSER, "no spare was taken"
        return clone(flags)  # of the user namespace an ID-mapped mount has its mapping from

    patch.setattr(process, "clone", clone_inhabitant)


def add_spare(of: Nursery) -> Spare:
    coming = of.order()
    coming.wait()
    spare = coming.admit()
    spares.add(spare)
    return spare


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_alive(pid))


def assert_alike(result: Result, expected: Result) -> None:
    texts = [(each.stdout + each.stderr).splitlines() for each in (expected, result)]
    assert not list(difflib.unified_diff(*texts, n=0, lineterm=""))
    assert (result.code, result.warnings) == (expected.code, expected.warnings)


def tell(bundle: Bundle, init: Running, changes: dict[str, Any]) -> Result:
    """Return what a process executed in the container finds; ``changes`` are to its document."""
    return bundle.execute(init, "sh", "-c", TELL, user="nobody", process=changes)


def changed(bundle: Bundle) -> Bundle:
    """Give a document something of all that a plan can hold."""
    bundle.process["env"] += ["NAME=value", "EMPTY=", *LONG]
    bundle.process["user"] = {"uid": 12, "gid": 34, "additionalGids": [56], "umask": 0o27}
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]
    bundle.process["oomScoreAdj"] = 123
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.linux["resources"] = {"pids": {"limit": 20}}
    bundle.linux["namespaces"].append({"type": "cgroup"})
    hosts = bundle.path / "hosts"
    hosts.write_text("127.0.0.1 here\n")
    bundle.config["mounts"] += [
        {"destination": "/etc/hosts", "source": str(hosts), "options": ["bind", "rprivate", "ro"]},
        {"destination": "/there", "source": str(bundle.path), "options": ["rbind", "rslave"]},
    ]
    mapped = [{"containerID": 0, "hostID": 3000, "size": 1}]
    for name in ("one", "other"):  # both are prepared ahead, with one mapping
        (bundle.path / "owned").mkdir(exist_ok=True)
        bundle.config["mounts"].append(
            {
                "destination": f"/{name}",
                "source": str(bundle.path / "owned"),
                "options": ["bind", "idmap"],
                "uidMappings": mapped,
                "gidMappings": mapped,
            }
        )
    bundle.extras = {"files": ["/etc/hosts"], "init": True, "user": "nobody:wheel"}
    return bundle


def test_a_container_finds_what_it_finds_after_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        for number, change in enumerate((lambda bundle: bundle, changed)):
            bundle = change(Bundle(tmp_path / str(number)))
            expected = bundle.shell(TELL_FIRST)
            with nursery() as keeper, monkeypatch.context() as patch:
                forbid_clones(patch)
                for _ in range(3):  # the first shows which pages the others have ahead
                    spare = add_spare(keeper)
                    result = bundle.shell(TELL_FIRST)
                    assert_alike(result, expected)
                    wait_for_end(spare.pid)
                    assert not cgroups_named(bundle.id)

    isolated(body)


def test_an_exec_finds_what_it_finds_after_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with Capture() as capture:
            init = bundle.start("sleep", "1000", stdio=capture.stdio)
            plain = dict[str, Any]()
            changes = {
                "env": [*bundle.process["env"], *LONG],
                "scheduler": {"policy": "SCHED_BATCH", "nice": -3},
                "execCPUAffinity": {"initial": "0", "final": "0"},
            }
            documents = (plain, changes)
            expected = [tell(bundle, init, document) for document in documents]
            with nursery() as keeper, monkeypatch.context() as patch:
                forbid_clones(patch)
                add_spare(keeper)
                for _ in range(2):  # the second is made at once, as are all on v2
                    assert_alike(tell(bundle, init, plain), expected[0])
                    assert spares.count() == ENTERS_BY_CLONE
                assert_alike(tell(bundle, init, changes), expected[1])
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()

    isolated(body)


def test_a_container_finds_the_same_when_none_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        bundle = changed(Bundle(tmp_path))
        expected = bundle.shell(TELL_FIRST)
        with nursery(), monkeypatch.context() as patch:
            forbid_clones(patch)
            for _ in range(2):
                assert_alike(bundle.shell(TELL_FIRST), expected)
                assert not cgroups_named(bundle.id)

    isolated(body)


def test_a_container_in_anothers_pid_namespace_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        first, bundle = Bundle(tmp_path / "0", "first"), changed(Bundle(tmp_path / "1"))
        with Capture() as capture:
            init = first.start("sleep", "1000", stdio=capture.stdio)
            bundle.join("pid", f"/proc/{init.pid}/ns/pid")
            script = TELL.replace("|PPid", "")  # another number each time
            expected = bundle.shell(script)
            with nursery(), monkeypatch.context() as patch:
                forbid_clones(patch)
                assert_alike(bundle.shell(script), expected)
                assert not cgroups_named(bundle.id)
                with pytest.raises(LaunchError, match="executable file not found"):
                    bundle.run("no-such-program")
                assert not cgroups_named(bundle.id)
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        first.destroy()

    isolated(body)


def test_one_is_born_in_a_group_that_does_not_let_it_run(tmp_path: Path) -> None:
    """As an exec's is with cgroup v2, which a host may have beside v1: nobody waits for it."""

    def body() -> None:
        (tmp_path / "groups").mkdir()
        tree_fd = mount.new_mount("cgroup2")
        mount.place_at(tree_fd, str(tmp_path / "groups"))
        os.close(tree_fd)
        group = tmp_path / f"groups/test-spares-{os.getpid()}"
        group.mkdir()
        group_fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        with nursery():
            (group / "cgroup.freeze").write_text("1")
            spare = spares.make(namespaces.CLONE_NEWUTS, group_fd)
            assert spare is not None
            assert (group / "cgroup.procs").read_text().split() == [str(spare.pid)]
            assert os.stat(f"/proc/{spare.pid}/ns/uts") != os.stat("/proc/self/ns/uts")
            spare.close()
            group.rmdir()
            with pytest.raises(KernelError, match="No such file"):
                spares.make(0, group_fd)
        os.close(group_fd)
        mount.unmount(str(tmp_path / "groups"))

    isolated(body)


def test_what_cannot_be_cloned_is_told_and_the_next_one_is() -> None:
    def body() -> None:
        with nursery():
            with pytest.raises(KernelError, match="Invalid argument"):
                spares.make(namespaces.CLONE_NEWNS | CLONE_FS)
            spare = spares.make()
            assert spare is not None
            assert spare.is_alive()
            spare.close()

    isolated(body)


def test_without_a_nursery_nothing_is_made(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with nursery() as keeper:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not keeper.is_alive())
            assert spares.make() is None
            assert bundle.shell("echo $$").stdout == "1\n"

    isolated(body)


def test_a_terminal_reaches_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["terminal"] = True
        with nursery() as keeper:
            forbid_clones(monkeypatch)
            add_spare(keeper)
            running = bundle.start("sh", "-c", "tty; stty size", stdio=None, size=(11, 22))
            assert running.terminal_fd is not None
            assert read_terminal(running.terminal_fd).split() == ["/dev/pts/0", "11", "22"]
            assert end(running) == 0
        bundle.destroy()

    isolated(body)


def test_a_spare_holds_nothing_and_stands_nowhere(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with nursery() as keeper, open("/dev/null") as strange, Capture() as capture:
            init = bundle.start("sleep", "1000", stdio=capture.stdio)
            spare = add_spare(keeper)
            fds = sorted(map(int, os.listdir(f"/proc/{spare.pid}/fd")))
            assert fds[:3] == [0, 1, 2]
            assert len(fds) == 4
            assert os.readlink(f"/proc/{spare.pid}/fd/{fds[3]}").startswith("socket:")
            assert strange.fileno() not in fds or fds[3] == strange.fileno()
            for name in os.listdir("/proc/self/ns"):
                own, its = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in ("self", spare.pid))
                assert own == its, name
            assert (
                Path(f"/proc/{spare.pid}/cgroup").read_text()
                == Path("/proc/self/cgroup").read_text()
            )
            assert os.stat(f"/proc/{spare.pid}/fd").st_uid == 0
            assert str(spare.pid) not in bundle.execute(init, "ls", "/proc").stdout.split()
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()

    isolated(body)


def do_when_born(act: Callable[[channel.Channel], None]) -> None:
    """Have every successor call ``act`` before it says anything; the nursery must come after."""
    say = channel.Channel.say

    def act_or_say(line: channel.Channel, message: dict[str, Any]) -> None:
        if "process" in message:
            act(line)
        say(line, message)

    channel.Channel.say = act_or_say  # type: ignore[method-assign] # the nursery has a copy


def begun(bundle: Bundle, capture: Capture) -> Launch:
    """Return a start whose successor exists."""
    bundle.save()
    launch = runtime.begin(bundle.id, str(bundle.path), stdio=capture.stdio)
    wait_until(lambda: len(launch.children) == 2)
    return launch


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("moment", ["ordered", "waiting", "used"])
def test_no_spare_outlives_its_owner(tmp_path: Path, moment: str) -> None:
    bundle = Bundle(tmp_path)
    bundle.save()

    def own() -> None:
        do_when_born(channel.Channel.wait_for_word)
        keeper = Nursery()
        if moment == "ordered":
            keeper.order()
        else:
            add_spare(keeper)
        if moment == "used":
            begun(bundle, Capture().__enter__())
        os.kill(os.getpid(), signal.SIGKILL)

    def body() -> None:
        pid = os.fork()
        if pid == 0:
            own()
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        while list(children()):  # orphans come here; each must end by itself
            os.waitpid(-1, 0)
        bundle.destroy()

    isolated(body)


def test_what_was_succeeded_never_runs_again(tmp_path: Path) -> None:
    """Its stack was another's: the kernel stops it where it would return."""

    def body() -> None:
        do_when_born(lambda _: os._exit(9))
        bundle = Bundle(tmp_path)
        with nursery() as keeper, Capture() as capture:
            spare = add_spare(keeper)
            launch = begun(bundle, capture)
            wait_until(lambda: state(spare.pid) == "t")
            stop = os.waitid(os.P_PID, spare.pid, os.WSTOPPED | os.WNOWAIT)
            assert stop is not None
            assert stop.si_status == signal.SIGTRAP | PTRACE_EVENT_VFORK_DONE << 8
            with pytest.raises(BlockingIOError):
                launch._channel.receive()
            launch.abort()
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_a_failure_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with nursery() as keeper:
            forbid_clones(monkeypatch)
            add_spare(keeper)
            with pytest.raises(LaunchError, match="executable file not found") as failed:
                bundle.run("no-such-program")
            assert failed.value.kind == "not-found"
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_a_spare_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with nursery() as keeper:
            spare = add_spare(keeper)
            os.kill(spare.pid, signal.SIGKILL)
            wait_until(lambda: state(spare.pid) == "Z")
            assert bundle.shell("echo $$").stdout == "1\n"
            assert spares.count() == 0

    isolated(body)


def long_environment(bundle: Bundle) -> None:
    bundle.process["env"] += [f"N{number}={'x' * 100_000}" for number in range(2)]


def refusal_to_trace(_: Bundle) -> None:
    def seize(pid: int) -> None:
        raise PermissionError(pid)

    made.seize = seize  # type: ignore[attr-defined]


@pytest.mark.parametrize("hinder", [long_environment, refusal_to_trace])
def test_what_a_spare_cannot_be_is_cloned(tmp_path: Path, hinder: Callable[[Bundle], None]) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        hinder(bundle)
        with nursery() as keeper:
            add_spare(keeper)
            assert bundle.shell("echo $$").stdout == "1\n"

    isolated(body)


def in_user_namespace(bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = maps
    subprocess.run(["chown", "-hR", "100000:100000", bundle.rootfs], check=True)


def with_hook(bundle: Bundle) -> None:
    bundle.config["hooks"] = {"prestart": [{"path": "/bin/true"}]}


def in_new_time(bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "time"})


has_clocks = pytest.mark.skipif(
    not os.path.exists("/proc/self/timens_offsets"), reason="a kernel without time namespaces"
)


@pytest.mark.parametrize(
    "change", [in_user_namespace, with_hook, pytest.param(in_new_time, marks=has_clocks)]
)
def test_what_needs_its_parent_leaves_the_spare_alone(
    tmp_path: Path, change: Callable[[Bundle], None]
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        change(bundle)
        with nursery() as keeper:
            spare = add_spare(keeper)
            assert bundle.shell("echo $$").stdout == "1\n"
            assert (spares.count(), is_alive(spare.pid)) == (1, True)

    isolated(body)
