"""Kernel tests of hooks: where, when and with what each is run, and what a failure does.

Spec: OCI runtime-spec 1.2, config.md "POSIX-platform Hooks", runtime.md "Lifecycle".
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peers import BOTH, Peer

from cais.runtime import container as runtime
from cais.runtime.habits import Habits
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import cgroups_named, isolated
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)


class Hooked(Bundle):
    """A bundle whose hooks are shell scripts that write to files in ``log``."""

    def __init__(self, directory: Path) -> None:
        (directory / "bundle").mkdir()
        super().__init__(directory / "bundle")
        self.log = directory / "log"
        self.log.mkdir()
        self.log.chmod(0o777)
        self.config["hooks"] = {}
        self.config["mounts"].append(
            {
                "destination": "/log",
                "type": "bind",
                "source": str(self.log),
                "options": ["rbind", "rw"],
            }
        )

    def hook(self, point: str, script: str, **members: Any) -> None:
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
        self.config["hooks"].setdefault(point, []).append({**hook, **members})

    def note(self, point: str, extra: str = "true") -> None:
        """Have the hooks of a point write the state they get, and their order."""
        place = "/log" if point == "startContainer" else str(self.log)
        script = f"cat > {place}/{point}; echo {point} >> {place}/order; {extra}"
        self.hook(point, script)

    def read(self, name: str) -> str:
        return (self.log / name).read_text()

    def state(self, point: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.read(point))
        return document

    def order(self) -> list[str]:
        return self.read("order").split()


def with_peer(tmp_path: Path, name: str, body: Callable[[Peer, Hooked], None]) -> None:
    def run() -> None:
        bundle = Hooked(tmp_path)
        body(Peer(name, bundle, tmp_path), bundle)

    isolated(run, timeout_s=90)


@pytest.mark.parametrize("name", BOTH)
def test_every_hook_is_run_in_order_with_the_state(tmp_path: Path, name: str) -> None:
    # oci: hooks.prestart, .createRuntime, .createContainer, .startContainer, .poststart, .poststop
    # oci: state.ociVersion, .id, .status, .pid, .bundle, .annotations; annotations
    def body(peer: Peer, bundle: Hooked) -> None:
        for point in POINTS:
            bundle.note(point)
        bundle.config["annotations"] = {"org.example.key": "value"}
        bundle.process["args"] = ["sh", "-c", "echo program >> /log/order; sleep 60"]
        peer.create()
        state = json.loads(peer("state", peer.id).stdout)
        assert (state["status"], state["annotations"]) == ("created", {"org.example.key": "value"})
        expected = ["prestart", "createRuntime", "createContainer"]
        assert bundle.order()[:3] == expected
        peer("start", peer.id)
        wait_until(lambda: "program" in bundle.order())
        peer("kill", peer.id, "KILL")
        peer("delete", "--force", peer.id)
        os.waitpid(state["pid"], 0)  # an orphan of ``create``, and so ours
        # runc 1.1 runs poststart as it creates; the specification wants it behind the program.
        wanted = [*expected, "startContainer", "program", "poststop"]
        assert [point for point in bundle.order() if point != "poststart"] == wanted
        if name == "cais":
            assert bundle.order().index("poststart") > bundle.order().index("startContainer")
        statuses = {point: bundle.state(point)["status"] for point in POINTS}
        assert statuses.pop("poststart") in ("running", "created")
        assert statuses == {
            "prestart": "creating",
            "createRuntime": "creating",
            "createContainer": "creating",
            "startContainer": "created",
            "poststop": "stopped",
        }
        for point in POINTS:
            found = bundle.state(point)
            assert found["ociVersion"].startswith("1.")
            assert (found["id"], found["bundle"]) == (peer.id, str(bundle.path))
            assert found["annotations"] == {"org.example.key": "value"}
        pids = [bundle.state(point).get("pid", 0) for point in POINTS]
        assert pids == [state["pid"], state["pid"], 1, 1, state["pid"], 0]

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_hooks_see_the_namespaces_of_their_point(tmp_path: Path, name: str) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        ours = os.readlink("/proc/self/ns/mnt")
        for point in ("createRuntime", "createContainer", "poststart"):
            extra = f"readlink /proc/self/ns/mnt > {bundle.log}/{point}.ns"
            bundle.note(point, extra)
        seen = f"ls {bundle.rootfs}/proc > {bundle.log}/proc; ls /bin/sh > {bundle.log}/host"
        bundle.note("createContainer", f"{seen}; echo made > {bundle.rootfs}/dev/shm/by-hook")
        bundle.note("startContainer", "readlink /proc/self/ns/mnt > /log/inside.ns; ls / > /log/ls")
        result = peer.run("sh", "-c", "readlink /proc/self/ns/mnt; cat /dev/shm/by-hook")
        inside, made = result.stdout.split()
        assert inside != ours
        assert made == "made"
        assert bundle.read("createRuntime.ns").strip() == ours
        assert bundle.read("poststart.ns").strip() == ours
        assert bundle.read("createContainer.ns").strip() == inside
        assert bundle.read("inside.ns").strip() == inside
        assert "self" in bundle.read("proc").split()  # the mounts are there
        assert "usr" not in bundle.read("ls").split()  # the container's root

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_arguments_and_environment_are_as_written(tmp_path: Path, name: str) -> None:
    # oci: Hook.path, Hook.args, Hook.env
    def body(peer: Peer, bundle: Hooked) -> None:
        arguments = f'tr "\\0" "\\n" < /proc/$$/cmdline > {bundle.log}/args'
        show = f"{arguments}; env > {bundle.log}/env"
        bundle.hook(
            "createRuntime",
            "",
            args=["my name", "-c", show, "first", "se cond"],
            env=["A=1", "B=two words", "PATH=/bin:/usr/bin"],
        )
        peer.run("true")
        assert bundle.read("args").splitlines()[:2] == ["my name", "-c"]
        environment = bundle.read("env").splitlines()
        assert {"A=1", "B=two words"} <= set(environment)
        assert not [line for line in environment if line.startswith(("HOME=", "LD_"))]

    with_peer(tmp_path, name, body)


def test_no_descriptor_leaks_into_a_hook(tmp_path: Path) -> None:
    # runc 1.1 fails this: four of its own are open in createContainer hooks.
    def body(peer: Peer, bundle: Hooked) -> None:
        for point in POINTS:
            place = "/log" if point == "startContainer" else bundle.log
            bundle.hook(point, f"cd /proc/self/fd; echo [0-9]* > {place}/{point}")
        peer.run("true")
        for point in POINTS:
            # The shell holds the script's redirection, if at all, as number 1.
            assert bundle.read(point).split() in (["0", "1", "2"], ["0", "1", "2", "3"]), point

    with_peer(tmp_path, "cais", body)


def test_what_the_program_is_to_inherit_is_not_for_hooks(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        for point in ("createContainer", "startContainer"):
            place = "/log" if point == "startContainer" else bundle.log
            bundle.hook(point, f"ls -l /proc/self/fd > {place}/{point}")
        fd = os.open("/etc", os.O_PATH)
        os.set_inheritable(fd, True)  # as --preserve-fds finds it
        habits = Habits()
        habits.preserved = [fd]
        result = bundle.shell(f"readlink /proc/self/fd/{fd}", habits=habits)
        os.close(fd)
        assert result.stdout.strip().endswith("etc")
        for point in ("createContainer", "startContainer"):
            assert "etc" not in bundle.read(point), point

    isolated(body)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_before_the_start_ends_the_container(
    tmp_path: Path, name: str, point: str
) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook(point, "echo said; echo why >&2; exit 7")
        bundle.hook(point, f"touch {bundle.log}/second")
        bundle.note("poststop")
        failed = peer.run("true", ok=False)
        assert failed.returncode == 1
        assert "exit status 7, stdout: said" in failed.stderr.replace("\\n", "\n")
        assert f"error running {point} hook #0" in failed.stderr or name == "runc"
        assert not (bundle.log / "second").exists()
        assert bundle.state("poststop")["status"] == "stopped"
        assert peer("state", peer.id, ok=False).returncode == 1
        assert not cgroups_named(peer.id)

    with_peer(tmp_path, name, body)


def test_a_failing_start_container_hook_ends_the_container(tmp_path: Path) -> None:
    # runc 1.1 tells nobody: its init has no line to the caller any more.
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("startContainer", "echo why >&2; exit 3")
        bundle.note("poststop")
        bundle.process["args"] = ["touch", "/log/program"]
        failed = peer.run(ok=False)
        assert "error running startContainer hook #0: exit status 3" in failed.stderr
        assert bundle.order() == ["poststop"]
        peer.create()
        failed = peer("start", peer.id, ok=False)
        os.waitpid(-1, 0)  # an orphan of ``create``, and so ours
        assert failed.returncode == 1
        assert "error running startContainer hook #0: exit status 3" in failed.stderr
        assert bundle.order() == ["poststop", "poststop"]
        assert peer("state", peer.id, ok=False).returncode == 1
        assert not (bundle.log / "program").exists()
        assert not cgroups_named(peer.id)

    with_peer(tmp_path, "cais", body)


def test_a_failing_poststart_hook_ends_the_container(tmp_path: Path) -> None:
    # runtime.md "Lifecycle", step 9, since 1.2.1; runc did so before it was written down.
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("poststart", "exit 4")
        bundle.note("poststop")
        bundle.process["args"] = ["sleep", "60"]
        failed = peer.run(ok=False)
        assert "error running poststart hook #0: exit status 4" in failed.stderr
        peer.create()
        failed = peer("start", peer.id, ok=False)
        os.waitpid(-1, 0)  # an orphan of ``create``, and so ours
        assert "error running poststart hook #0: exit status 4" in failed.stderr
        assert bundle.order() == ["poststop", "poststop"]
        assert peer("state", peer.id, ok=False).returncode == 1

    with_peer(tmp_path, "cais", body)


def test_a_failing_poststop_hook_is_a_warning(tmp_path: Path) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("poststop", "exit 5")
        bundle.note("poststop")
        done = peer.run("true")
        assert "level=warning" in done.stderr
        assert "error running poststop hook #0: exit status 5" in done.stderr
        assert bundle.order() == ["poststop"]

    with_peer(tmp_path, "cais", body)


@pytest.mark.parametrize("name", BOTH)
def test_a_hook_that_runs_too_long_is_killed(tmp_path: Path, name: str) -> None:
    # oci: Hook.timeout
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("createRuntime", "exec sleep 100", timeout=1)  # would be seen as left behind
        failed = peer.run("true", ok=False)
        assert "hook ran past specified timeout of 1.0s" in failed.stderr

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize(
    "point", ["prestart", "createContainer", "startContainer", "poststart", "poststop"]
)
def test_the_hooks_of_every_point_have_their_time(tmp_path: Path, point: str) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook(point, "exec sleep 100", timeout=1)
        ended = peer.run("true", ok=point == "poststop")
        assert f"{point} hook #0" in ended.stderr
        assert "hook ran past specified timeout of 1.0s" in ended.stderr

    with_peer(tmp_path, "cais", body)


def test_a_hook_may_have_more_time_than_poll_can_wait(tmp_path: Path) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("createRuntime", "exec sleep 0.1", timeout=2**31 - 1)
        assert peer.run("true").stderr == ""

    with_peer(tmp_path, "cais", body)


def test_limits_that_leave_no_room_for_a_hook_are_named(tmp_path: Path) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("startContainer", "true")
        steps = ("state for startContainer hooks", "startContainer hook #0")
        failures = 0
        for soft in range(1, 20):  # what else is open depends on the kernel, and so does the step
            limits = [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": 64}]
            bundle.process["rlimits"] = limits
            failed = peer.run("true", ok=False).stderr
            if "too many open files" not in failed:
                break  # the hook is run
            assert any(step in failed for step in steps), failed
            failures += 1
        assert failures

    with_peer(tmp_path, "cais", body)


@pytest.mark.parametrize("name", BOTH)
def test_a_hook_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.hook("createRuntime", "", path="/no/such/hook")
        failed = peer.run("true", ok=False)
        assert "fork/exec /no/such/hook: no such file or directory" in failed.stderr

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_a_hook_that_reads_nothing_or_leaves_children_stalls_nobody(
    tmp_path: Path, name: str
) -> None:
    def body(peer: Peer, bundle: Hooked) -> None:
        bundle.config["annotations"] = {"big": "x" * 200_000}  # more than a pipe holds
        bundle.hook("createRuntime", "exec true")
        bundle.hook("createRuntime", "exec true", path="/bin/true", args=["true"])
        assert peer.run("echo", "fine").stdout == "fine\n"

    with_peer(tmp_path, name, body)


def test_a_killed_hook_is_told_by_its_signal(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        bundle.hook("createRuntime", "kill -9 $$")
        with pytest.raises(LaunchError, match="createRuntime hook #0: signal: killed"):
            bundle.run("true")

    isolated(body)


def test_output_in_an_error_is_bounded(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        bundle.hook("createContainer", "yes | head -c 1000000; yes | head -c 1000000 >&2; exit 1")
        with pytest.raises(LaunchError, match="exit status 1") as failed:
            bundle.run("true")
        assert len(failed.value.message) < 8192

    isolated(body)


def test_hooks_work_in_a_user_namespace(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        tmp_path.chmod(0o755)
        bundle.linux["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.linux.update(uidMappings=maps, gidMappings=maps)
        for path in (bundle.rootfs, *bundle.rootfs.rglob("*")):
            os.chown(path, 100000, 100000, follow_symlinks=False)
        bundle.note("createRuntime", f"id -u > {bundle.log}/host-id")
        bundle.hook("createContainer", "id -u > dev/shm/hook-id; pwd > dev/shm/place")
        result = bundle.run("sh", "-c", "cat /dev/shm/hook-id /dev/shm/place")
        assert result.stdout.split() == ["0", str(bundle.rootfs)]
        assert bundle.read("host-id") == "0\n"

    isolated(body)


def test_start_container_hooks_have_the_program_s_user_and_filter(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        bundle.process["user"] = {"uid": 7, "gid": 8}
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            ],
        }
        script = "id -u >/log/id; id -g >>/log/id; grep -E '^(Seccomp|CapEff):' /proc/$$/status"
        bundle.hook("startContainer", f"{script} >>/log/id")
        assert bundle.run("true").code == 0
        words = bundle.read("id").split()
        assert words == ["7", "8", "CapEff:", "0" * 16, "Seccomp:", "2"]

    isolated(body)


def test_poststop_hooks_are_run_once_and_leave_nothing(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        bundle.note("poststop")
        with Capture() as capture:
            end(bundle.start("true", stdio=capture.stdio))
        bundle.destroy()
        run = runtime.begin_poststop(bundle.id, str(bundle.path))
        assert run is not None
        while not run.advance():
            time.sleep(0.005)
        assert bundle.order() == ["poststop"]
        assert "pid" not in bundle.state("poststop")

    isolated(body)


def test_giving_up_a_start_ends_its_hook(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Hooked(tmp_path)
        bundle.hook("createRuntime", f"echo $$ > {bundle.log}/pid; exec sleep 100")
        bundle.process["args"] = ["true"]
        bundle.save()
        with Capture() as capture:
            launch = runtime.begin(bundle.id, str(bundle.path), stdio=capture.stdio)
            while not (bundle.log / "pid").exists() or not bundle.read("pid"):
                assert launch.advance() is None
                time.sleep(0.005)
            launch.abort()
        bundle.destroy()
        pid = bundle.read("pid").strip()
        while Path(f"/proc/{pid}").exists():  # the kernel has signalled it; it takes a moment
            os.waitpid(int(pid), 0)  # its runner is gone, so it is ours (a subreaper)
        runtime.begin_poststop(bundle.id, str(bundle.path))

    isolated(body)


@pytest.mark.parametrize("point", ["createContainer", "startContainer"])
def test_what_a_hook_left_running_hides_no_failure_of_the_start(tmp_path: Path, point: str) -> None:
    """In the host's pid namespace it outlives the container's process, and keeps its group busy."""

    def body(peer: Peer, bundle: Hooked) -> None:
        spaces = bundle.linux["namespaces"]
        bundle.linux["namespaces"] = [each for each in spaces if each["type"] != "pid"]
        bundle.hook(point, "sleep 86400 </dev/null >/dev/null 2>&1 & exit 3")
        refused = peer.run(ok=False)
        assert "exit status 3" in refused.stderr
        assert not cgroups_named(peer.id)
        os.wait()  # the hook's child, which is ours by now

    with_peer(tmp_path, "cais", body)
