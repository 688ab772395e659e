"""Kernel tests of a container's start: what the user's program finds around it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, end, read_terminal
from cais.testing.isolation import cgroups_named, isolated

MASK = "00000000a80425fb"


def command(*args: str | Path) -> None:
    subprocess.run(args, check=True)


def status_of(text: str, *names: str) -> list[str]:
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return [values[name].strip() for name in names]


def test_the_program_is_alone_in_its_namespaces(tmp_path: Path) -> None:
    # oci: hostname

    def body() -> None:
        bundle = Bundle(tmp_path)
        result = bundle.shell(
            "echo $$; hostname; ls /; ps >/dev/shm/ps; wc -l </dev/shm/ps; wc -l </proc/net/dev"
        )
        lines = result.stdout.split()
        assert lines == ["1", "box", "bin", "dev", "etc", "proc", "sys", "3", "3"]
        assert result.code == 0
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_loopback_is_up(tmp_path: Path) -> None:
    def body() -> None:
        result = Bundle(tmp_path).shell("ip addr show lo; ping -c 1 -W 1 127.0.0.1")
        assert "inet 127.0.0.1/8" in result.stdout
        assert result.code == 0

    isolated(body)


def test_exit_codes_come_through(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        assert bundle.shell("exit 3").code == 3
        assert bundle.shell("kill -9 $$; exit 4").code == 4  # pid 1 is immune from inside

    isolated(body)


def test_default_mounts_devices_and_links(tmp_path: Path) -> None:
    def body() -> None:
        result = Bundle(tmp_path).shell("cat /proc/mounts; ls -ln /dev; stat -c %a /dev/null")
        mounts = {
            line.split()[1]: line.split()
            for line in result.stdout.splitlines()
            if " / " not in line and line.count(" ") == 5
        }
        assert mounts["/proc"][2:4] == ["proc", "rw,nosuid,nodev,noexec,relatime"]
        assert mounts["/dev"][3].startswith("rw,nosuid,size=65536k,mode=755")
        assert mounts["/dev/pts"][3] == "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666"
        assert mounts["/sys"][3].startswith("ro,nosuid,nodev,noexec")
        assert mounts["/sys/fs/cgroup"][3].startswith("ro,nosuid,nodev,noexec")
        for name, numbers in (
            ("null", "1,   3"),
            ("zero", "1,   5"),
            ("full", "1,   7"),
            ("random", "1,   8"),
            ("urandom", "1,   9"),
            ("tty", "5,   0"),
        ):
            assert any(
                line.startswith("crw-rw-rw-") and numbers in line and line.endswith(f" {name}")
                for line in result.stdout.splitlines()
            ), name
        for link in ("ptmx -> pts/ptmx", "fd -> /proc/self/fd", "stdin -> /proc/self/fd/0"):
            assert link in result.stdout
        assert result.stdout.endswith("666\n")

    isolated(body)


def test_masked_paths_are_empty_and_cannot_be_written(tmp_path: Path) -> None:
    # oci: linux.maskedPaths

    script = (
        "for f in keys timer_list interrupts; do wc -c < /proc/$f; stat -c '%t:%T' /proc/$f; done;"
        "ls -A /sys/firmware /proc/acpi | grep -v : | wc -w; touch /proc/acpi/x; echo $?"
    )

    def body() -> None:
        result = Bundle(tmp_path).shell(script)
        assert result.stdout.split() == ["0", "1:3"] * 3 + ["0", "1"]

    isolated(body)


def test_read_only_paths_and_root(tmp_path: Path) -> None:
    # oci: linux.readonlyPaths, root.path, root.readonly

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["root"]["readonly"] = True
        script = "touch /x; echo 1 > /proc/sys/kernel/msgmax; touch /dev/shm/ok && echo shm"
        result = bundle.shell(script)
        assert result.stderr.count("Read-only file system") == 2
        assert result.stdout == "shm\n"
        assert sorted(os.listdir(bundle.rootfs)) == ["bin", "dev", "etc", "proc", "sys"]

    isolated(body)


def test_capability_sets_are_exact(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        found = status_of(bundle.run("cat", "/proc/self/status").stdout, *names)
        assert found == ["0" * 16, MASK, MASK, MASK, "0" * 16]
        bundle.process["capabilities"] = {
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"],
        }
        bundle.process["user"] = {"uid": 7, "gid": 7}
        found = status_of(bundle.run("cat", "/proc/self/status").stdout, *names)
        assert found == [f"{1:016x}", f"{1:016x}", f"{1:016x}", f"{0x21:016x}", f"{1:016x}"]

    isolated(body)


def test_no_new_privileges_umask_rlimits_and_oom_score(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["noNewPrivileges"] = True
        bundle.process["oomScoreAdj"] = 123
        bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
        bundle.process["user"]["umask"] = 0o077
        script = (
            "grep NoNewPrivs /proc/self/status; umask; ulimit -Sn; ulimit -Hn;"
            "cat /proc/self/oom_score_adj"
        )
        assert bundle.shell(script).stdout.split() == [
            *("NoNewPrivs:", "1", "0077", "100", "200", "123")
        ]

    isolated(body)


def test_a_limit_the_host_forbids_is_clamped_with_a_warning(tmp_path: Path) -> None:
    hard = os.sysconf("SC_OPEN_MAX")

    def body() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))
        bundle = Bundle(tmp_path)
        bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 20, "hard": 1 << 20}]
        result = bundle.shell("ulimit -Sn; ulimit -Hn")
        capable = int(status_of(Path("/proc/self/status").read_text(), "CapEff")[0], 16) >> 24 & 1
        if capable:
            assert result.stdout.split() == [str(1 << 20)] * 2
        else:
            assert result.stdout.split() == ["512", "512"]
            assert "CAP_SYS_RESOURCE" in result.warnings[0]

    assert hard > 512
    isolated(body)


def test_bind_mounts_of_files_and_directories(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path / "bundle")
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_text("content\n")
        bundle.config["mounts"] += [
            {"destination": "/a/b", "type": "bind", "source": str(source), "options": ["rbind"]},
            {
                "destination": "/etc/one",
                "type": "bind",
                "source": str(source / "file"),
                "options": ["bind", "ro"],
            },
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
        ]
        result = bundle.shell(
            "cat /a/b/file /etc/one; echo x > /etc/one; echo new > /a/b/new; df /t"
        )
        assert result.stdout.startswith("content\ncontent\n")
        assert "/etc/one: Read-only" in result.stderr
        assert (source / "new").read_text() == "new\n"
        assert "64" in result.stdout
        # What was made as a place to mount on stays, as with any runtime; nothing is in it.
        assert (bundle.rootfs / "etc/one").read_bytes() == b""

    (tmp_path / "bundle").mkdir()
    isolated(body)


@pytest.mark.parametrize(("option", "seen"), [("rslave", True), ("rprivate", False)])
def test_propagation_of_binds(tmp_path: Path, option: str, seen: bool) -> None:
    def body() -> None:
        from cais.testing.bundles import Capture

        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        source = tmp_path / "source"
        (source / "sub").mkdir(parents=True)
        command("mount", "-t", "tmpfs", "none", source)
        (source / "sub").mkdir()
        command("mount", "--make-shared", source)
        bundle.config["mounts"].append(
            {
                "destination": "/v",
                "type": "bind",
                "source": str(source),
                "options": ["rbind", option],
            }
        )
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            command("mount", "-t", "tmpfs", "later", source / "sub")
            found = "later" in bundle.execute(init, "cat", "/proc/mounts").stdout
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            end(init)
            bundle.destroy()
        command("umount", "-R", source)
        assert found is seen

    isolated(body)


def test_overlay_root_from_layers(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        for name in ("upper", "work", "second:layer"):
            (tmp_path / name).mkdir()
        (tmp_path / "second:layer/extra").write_text("lower\n")
        escaped = str(tmp_path / "second:layer").replace(":", "\\:")
        options = [
            f"lowerdir={escaped}:{bundle.rootfs}",
            f"upperdir={tmp_path}/upper",
            f"workdir={tmp_path}/work",
        ]
        bundle.extras["rootfs"] = [
            {"type": "overlay", "source": "overlay", "target": "", "options": options}
        ]
        result = bundle.shell("cat /extra; echo up > /new; grep ' / ' /proc/mounts")
        assert result.stdout.startswith("lower\noverlay / overlay")
        assert (tmp_path / "upper/new").read_text() == "up\n"
        assert not (bundle.rootfs / "new").exists()

    isolated(body)


def test_overlay_paths_longer_than_the_mount_call_takes(tmp_path: Path) -> None:
    def body() -> None:
        deep = tmp_path / ("d" * 120) / ("e" * 120)
        deep.mkdir(parents=True)
        bundle = Bundle(tmp_path)
        layers = []
        for number in range(40):
            (deep / f"layer{number}").mkdir()
            layers.append(str(deep / f"layer{number}"))
        for name in ("upper", "work"):
            (deep / name).mkdir()
        lowers = ":".join([*layers, str(bundle.rootfs)])
        options = [f"lowerdir={lowers}", f"upperdir={deep}/upper", f"workdir={deep}/work"]
        bundle.extras["rootfs"] = [{"type": "overlay", "options": options}]
        assert bundle.shell("echo fine > /x; cat /x").stdout == "fine\n"
        assert (deep / "upper/x").exists()

    isolated(body)


def test_terminal(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["terminal"] = True
        script = "tty; stty size; ls -ln /dev/console; echo said > /dev/tty; cat /proc/mounts"
        running = bundle.start("sh", "-c", script, stdio=None, size=(33, 44))
        assert running.terminal_fd is not None
        text = read_terminal(running.terminal_fd).replace("\r", "")
        end(running)
        bundle.destroy()
        lines = text.splitlines()
        assert lines[:2] == ["/dev/pts/0", "33 44"]
        assert lines[2].startswith("crw")
        assert "136,   0" in lines[2]
        assert lines[3] == "said"
        assert any(line.startswith("devpts /dev/console devpts") for line in lines)

    isolated(body)


def test_sysctls_of_own_namespaces(tmp_path: Path) -> None:
    # oci: linux.sysctl

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"}
        files = "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
        assert bundle.shell(f"cat {files}").stdout.split() == ["1", "4242"]
        assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "4242"

    isolated(body)


def test_a_sysctl_without_proc_says_so(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["sysctl"] = {"kernel.msgmax": "4242"}
        bundle.config["mounts"] = []
        for part in ("maskedPaths", "readonlyPaths"):
            bundle.linux[part] = []
        with pytest.raises(LaunchError) as failed:
            bundle.run("true")
        assert str(failed.value) == "sysctls need /proc to be mounted in the container"

    isolated(body)


def test_a_sysctl_the_kernel_does_not_have(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["sysctl"] = {"net.ipv4.nosuch": "1"}
        with pytest.raises(LaunchError) as failed:
            bundle.run("true")
        text = "open /proc/sys/net/ipv4/nosuch: no such file or directory"
        assert (failed.value.kind, failed.value.message) == ("not-found", text)

    isolated(body)


def test_a_working_directory_that_is_a_file(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["cwd"] = "/etc/passwd"
        with pytest.raises(LaunchError, match=r"^Cannot mkdir: /etc/passwd is not a directory$"):
            bundle.run("true")

    isolated(body)


def test_working_directory_is_made_inside(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["cwd"] = "/work/deep"
        assert bundle.run("pwd").stdout == "/work/deep\n"
        assert (bundle.rootfs / "work/deep").is_dir()

    isolated(body)


def test_environment_is_passed_as_written_and_home_is_found(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["env"] += ["A=1", "B=x=y z", "A=2"]
        items = [*bundle.process["env"], "HOME=/home"]
        bundle.extras["user"] = "nobody"
        text = bundle.run("cat", "/proc/self/environ").stdout
        assert text.split("\0")[:-1] == items

    isolated(body)


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        (["nosuch"], "not-found", 'exec: "nosuch": executable file not found in $PATH'),
        (["/no"], "not-found", 'exec: "/no": stat /no: no such file or directory'),
        (["/etc"], "not-permitted", 'exec: "/etc": is a directory'),
        (["/etc/passwd"], "not-permitted", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_an_executable_that_is_none(
    tmp_path: Path, args: list[str], kind: str, message: str
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with pytest.raises(LaunchError) as failed:
            bundle.run(*args)
        assert (failed.value.kind, failed.value.message) == (kind, message)
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_a_program_the_kernel_refuses_says_so_on_stderr(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        for name, content in (("script", "#!/no/such\n"), ("noise", "garbage")):
            (bundle.rootfs / name).write_text(content)
            (bundle.rootfs / name).chmod(0o755)
        result = bundle.run("/script")
        assert (result.code, result.stderr) == (255, "exec /script: no such file or directory\n")
        result = bundle.run("/noise")
        assert (result.code, result.stderr) == (255, "exec /noise: exec format error\n")

    isolated(body)


def test_a_failed_mount_names_both_ends_and_leaves_nothing(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["mounts"].append(
            {"destination": "/d", "type": "bind", "source": "/no/such", "options": ["bind"]}
        )
        with pytest.raises(LaunchError) as failed:
            bundle.run("true")
        assert failed.value.errno == errno.ENOENT
        assert 'error mounting "/no/such" to rootfs at "/d"' in failed.value.message
        assert not cgroups_named(bundle.id)

    isolated(body)


@pytest.mark.parametrize(("source", "destination"), [("/etc/passwd", "/bin"), ("/etc", "/file")])
def test_a_file_and_a_directory_do_not_cover_each_other(
    tmp_path: Path, source: str, destination: str
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "file").touch()
        bundle.config["mounts"].append(
            {"destination": destination, "type": "bind", "source": source, "options": ["bind"]}
        )
        with pytest.raises(LaunchError) as failed:
            bundle.run("true")
        assert failed.value.errno == errno.ENOTDIR
        both = f'error mounting "{source}" to rootfs at "{destination}": '
        assert failed.value.message.startswith(both)
        assert failed.value.message.endswith(": not a directory")

    isolated(body)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"hooks": {"prestart": [{"path": "x"}]}}, InvalidArgumentError),
        ({"hostname": "", "linux": {"namespaces": [{"type": "pid"}]}}, UnsupportedError),
        ({"domainname": "x", "linux": {"namespaces": [{"type": "mount"}]}}, InvalidArgumentError),
    ],
)
def test_what_is_not_supported_is_refused_before_anything_starts(
    tmp_path: Path, change: dict[str, object], error: type[Exception]
) -> None:
    bundle = Bundle(tmp_path)
    bundle.config |= change
    with pytest.raises(error):
        bundle.start("true", stdio=None)


def test_init_forwards_reaps_and_passes_the_code_on(tmp_path: Path) -> None:

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.extras["init"] = True
        (bundle.rootfs / "script").write_text(
            "tr '\\0' ' ' < /proc/1/cmdline; echo; orphan=$(sleep 0.01 >/dev/null & echo $!)\n"
            "while [ -e /proc/$orphan ]; do :; done; cat /proc/[0-9]*/stat; exit 7\n"
        )
        result = bundle.run("sh", "/script")
        assert result.code == 7
        first, *processes = result.stdout.splitlines()
        assert first == "/sbin/docker-init -- sh /script "
        names = [line.split()[1] for line in processes]
        assert names[:2] == ["(docker-init)", "(sh)"]
        assert "(sleep)" not in names
        trap = "trap 'echo got it; exit 9' USR1; kill -USR1 1; while :; do sleep 0.01; done"
        result = bundle.shell(trap)
        assert (result.code, result.stdout) == (9, "got it\n")
        assert bundle.shell("kill -TERM $$").code == 143

    isolated(body)


def test_pid_namespace_of_another_container(tmp_path: Path) -> None:
    def body() -> None:
        from cais.testing.bundles import Capture

        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        second.linux["namespaces"] = [
            {"type": "mount"},
            {"type": "network"},
            {"type": "uts"},
            {"type": "ipc"},
        ]
        with Capture() as capture:
            init = first.start("sleep", "60", stdio=capture.stdio)
            second.linux["namespaces"].append({"type": "pid", "path": f"/proc/{init.pid}/ns/pid"})
            second.linux["namespaces"].append(
                {"type": "network", "path": f"/proc/{init.pid}/ns/net"}
            )
            second.linux["namespaces"].remove({"type": "network"})
            home = os.readlink("/proc/self/ns/pid_for_children")
            listing = second.run("ps").stdout
            assert os.readlink("/proc/self/ns/pid_for_children") == home
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            assert end(init) == 137
            first.destroy()
        assert "sleep 60" in listing

    isolated(body)


def test_descriptors_of_the_parent_do_not_reach_the_program(tmp_path: Path) -> None:
    def body() -> None:
        leak = os.open("/etc", os.O_RDONLY)
        os.set_inheritable(leak, True)
        listing = Bundle(tmp_path).run("ls", "/proc/self/fd").stdout.split()
        os.close(leak)
        assert listing == ["0", "1", "2", "3"]  # 3 is the listing's own

    isolated(body)


def test_signals_ignored_by_the_parent_are_not_ignored_by_the_program(tmp_path: Path) -> None:
    def body() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        text = Bundle(tmp_path).run("cat", "/proc/self/status").stdout
        assert status_of(text, "SigIgn", "SigBlk") == ["0" * 16, "0" * 16]

    isolated(body)
