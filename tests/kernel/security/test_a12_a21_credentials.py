"""A12, A18 to A21: a process has exactly the ids, groups and capabilities it should have."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from cais.runtime.launch import LaunchError, Running
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

MASK = f"{0xA80425FB:016x}"
NONE = "0" * 16


def facts(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user", ["", "1000", "nobody"])
def test_cve_2022_29162_sets_of_run_and_exec(tmp_path: Path, user: str, init: bool) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.extras = {"user": user, "init": init}
        expected = NONE if user else MASK
        found = [bundle.run("cat", "/proc/self/status")]
        with Capture() as capture:
            running = bundle.start("sleep", "60", stdio=capture.stdio)
            found.append(bundle.execute(running, "cat", "/proc/self/status", user=user))
            stop(bundle, running)
        for result in found:
            sets = facts(result.stdout)
            assert (sets["CapInh"], sets["CapAmb"], sets["CapBnd"]) == (NONE, NONE, MASK)
            assert (sets["CapPrm"], sets["CapEff"]) == (expected, expected)

    isolated(body)


def test_cve_2018_10856_a_privileged_container_of_another_user_has_no_capability(
    tmp_path: Path,
) -> None:
    def body() -> None:
        from cais.linux import credentials

        bundle = Bundle(tmp_path)
        everything = list(credentials.BITS)
        bundle.process["capabilities"] = dict.fromkeys(
            ("bounding", "permitted", "effective"), everything
        )
        bundle.extras["user"] = "1000"
        sets = facts(bundle.run("cat", "/proc/self/status").stdout)
        assert (sets["CapPrm"], sets["CapEff"], sets["CapInh"]) == (NONE, NONE, NONE)
        assert int(sets["CapBnd"], 16) == credentials.bounding()

    isolated(body)


def test_cve_2022_24769_file_capabilities_gain_nothing(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        cat = bundle.rootfs / "bin/capable"
        cat.write_bytes(Path("/bin/busybox").read_bytes())
        cat.chmod(0o755)
        (bundle.rootfs / "bin/cat").unlink()
        (bundle.rootfs / "bin/cat").hardlink_to(cat)
        subprocess.run(["setcap", "cap_net_raw+ei", cat], check=True)
        bundle.extras["user"] = "1000"
        sets = facts(bundle.run("cat", "/proc/self/status").stdout)
        assert (sets["CapPrm"], sets["CapEff"]) == (NONE, NONE)

    isolated(body)


def test_cve_2022_36109_the_primary_group_is_among_the_groups(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        secret = bundle.rootfs / "secret"
        secret.write_text("secret\n")
        os.chown(secret, 0, 10)
        secret.chmod(0o704)  # everybody but the group may read
        bundle.extras["user"] = "nobody:wheel"
        # Not id -G: it shows the primary group whether or not it is among the others, and a
        # set-group-id program takes the primary one away.
        result = bundle.shell("grep Groups: /proc/self/status; cat /secret")
        assert result.stdout.split() == ["Groups:", "10"]
        assert "Permission denied" in result.stderr
        bundle.extras |= {"user": "nobody", "additional_groups": ["77", "root"]}
        assert set(bundle.run("id", "-G").stdout.split()) == {"65534", "10", "77", "0"}

    isolated(body)


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("1", ("1", "0")),
        ("1:1", ("1", "1")),
        ("1000", ("1000", "0")),
        ("nobody", ("65534", "65534")),
        ("", ("0", "0")),
        (":10", ("0", "10")),
        ("2147483647", ("2147483647", "0")),
        ("4294967295", None),
        ("4294967296", None),
        ("2147483648", None),
        ("-1", None),
        ("+0", None),
        ("0x0", None),
        ("1e0", None),
        ("٣", None),
        (" 0", None),
        ("1_0", None),
        ("99999999999999999999", None),
        ("0:٣", None),
    ],
)
def test_cve_2016_3697_user_strings(tmp_path: Path, user: str, ids: tuple[str, str] | None) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:\n4294967296:x:0:0::/:\n"
            "nobody:x:65534:65534::/:\n1:x:0:0::/:\n"
        )
        bundle.extras["user"] = user
        if ids is None:
            with pytest.raises(LaunchError) as refused:
                bundle.run("true")
            assert refused.value.kind == "user"
            return
        found = facts(bundle.run("cat", "/proc/self/status").stdout)
        assert found["Uid"].split() == [ids[0]] * 4
        assert found["Gid"].split() == [ids[1]] * 4

    isolated(body)


@pytest.mark.parametrize("kind", ["huge", "fifo", "zero", "kcore", "stdin", "directory", "long"])
def test_cve_2026_47262_files_made_to_stall_the_lookup(tmp_path: Path, kind: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        group = bundle.rootfs / "etc/group"
        group.unlink()
        if kind == "huge":
            with group.open("wb") as file:
                file.truncate(5 << 30)
        elif kind == "fifo":
            os.mkfifo(group)
        elif kind == "zero":
            os.mknod(group, 0o020666, os.makedev(1, 5))
        elif kind in ("kcore", "stdin"):
            group.symlink_to("/proc/kcore" if kind == "kcore" else "/dev/stdin")
        elif kind == "directory":
            group.mkdir()
        else:
            group.write_text("g:x:5:" + ",".join(["nobody"] * 1_000_000) + "\n")
        bundle.extras["user"] = "nobody"
        if kind == "long" or (kind == "kcore" and not os.path.exists("/proc/kcore")):
            assert bundle.run("true").code == 0
        else:
            with pytest.raises(LaunchError) as refused:
                bundle.run("true")
            assert refused.value.kind == "user"

    isolated(body)


def stop(bundle: Bundle, running: Running) -> None:
    signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
    end(running)
    bundle.destroy()
