"""A1, A3, A11 to A13, A16, A20, A21: attackers who meet the whole engine."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from security_daemon import connected, running, shim_pid

from cais.linux import memfd
from cais.testing.archives import busybox_rootfs, docker_archive
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NONE = "0" * 16
MASK = f"{0xA80425FB:016x}"

# Of every process that is not the container's own: its program, its links, and whether it can be
# written. Runs until /stop appears.
HUNT = r"""
own=$(stat -Lc %d:%i /proc/1/exe)
while [ ! -e /stop ]; do
  for p in /proc/[0-9]*; do
    r=$(readlink $p/exe 2>/dev/null)
    e=$(stat -Lc %d:%i $p/exe 2>/dev/null) || continue
    [ $e = $own ] && continue
    echo "EXE $r"
    for l in $p/cwd $p/root $p/fd/*; do t=$(readlink $l 2>/dev/null) && echo "LINK $t"; done
    (echo x >>$p/exe) 2>/dev/null && echo "WROTE $(readlink $p/exe)"
  done
done >/found 2>/dev/null
echo done >>/found
sleep 60
"""
HARMLESS = re.compile(r"EXE (/memfd:cais|$)|LINK (/dev/null|socket:|pipe:|/memfd:cais|/$|$)|done$")


def host_files() -> dict[str, str]:
    """Return the digests of what runs the engine: interpreter, its libraries, the C library."""
    paths = {os.path.realpath(sys.executable)}  # noqa: TID251 - a host path
    paths |= {
        line.rpartition(" ")[2]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if re.search(r"/(libpython|libc\.so|ld-linux|_ctypes)[^/]*$", line)
    }
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in sorted(paths)}


def test_cve_2019_5736_exec_and_healthcheck_of_our_own_program(daemon: TestDaemon) -> None:
    """A1: a program that is a link to, or a script for, whatever process starts it."""
    before = host_files()
    assert len(before) >= 2
    prepare = (
        "mkdir -p /x /lib64; ln -s /proc/self/exe /x/ep; printf '#!/proc/self/exe\\n' >/x/script;"
        "cp /bin/busybox /lib64/ld-linux-x86-64.so.2; chmod 755 /x/script; touch /ready; sleep 60"
    )
    health = {"test": ["CMD", "/x/ep"], "interval": 10**9, "timeout": 2 * 10**9, "retries": 1}
    with (
        connected(daemon) as client,
        running(client, "sh", "-c", prepare, healthcheck=health) as container,
    ):
        wait_until(lambda: container.exec_run(["test", "-e", "/ready"])[0] == 0)
        for program in ("/x/ep", "/proc/self/exe", "/proc/1/../self/exe"):
            code, output = container.exec_run([program])
            # Refused before it ran: as our program it would look for an applet of that name.
            assert code in (126, 127), output
            assert b"unable to start container process" in output, (program, output)
        container.exec_run(["/x/script"])
        wait_until(lambda: health_of(container) != "starting")
        assert health_of(container) == "unhealthy"
    assert host_files() == before


def test_cve_2016_9962_a_hunter_finds_nothing_in_many_execs(daemon: TestDaemon) -> None:
    """A1, A3: with CAP_SYS_PTRACE, every process that appears is looked into and written to."""
    before = host_files()
    with (
        connected(daemon) as client,
        running(client, "sh", "-c", HUNT, cap_add=["SYS_PTRACE"]) as container,
    ):

        def execute() -> None:
            for _ in range(20):
                assert container.exec_run(["/bin/true"])[0] == 0

        threads = [threading.Thread(target=execute) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        container.exec_run(["touch", "/stop"])
        wait_until(lambda: written(container, "/found").endswith(b"done\n"))
        lines = set(written(container, "/found").decode().splitlines())
    assert [line for line in lines if line.startswith("WROTE")] == []
    assert [line for line in lines if not HARMLESS.match(line)] == []
    assert host_files() == before


def test_the_shim_s_program_is_sealed(daemon: TestDaemon) -> None:
    with open(f"/proc/{shim_pid(daemon)}/exe", "rb") as program:
        assert memfd.is_sealed(program.fileno())


@pytest.mark.parametrize("place", ["/proc", "/proc/self/attr", "/", "/x/../proc/self"])
def test_cve_2019_16884_no_volume_over_what_the_engine_writes(
    daemon: TestDaemon, place: str
) -> None:
    """A11: asked for by the client, and by the image."""
    image = docker_archive("evil:volume", [busybox_rootfs()], Cmd=["true"], Volumes={place: {}})
    loaded = daemon.docker("load", stdin=image, check=False)
    attempts = [("-v", place, "busybox", "true")] + [("evil:volume",)] * (loaded.returncode == 0)
    try:
        for arguments in attempts:
            done = daemon.docker("run", "--rm", *arguments, check=False)
            assert done.returncode == 125, (arguments, done.stdout, done.stderr)
    finally:
        daemon.docker("rmi", "-f", "evil:volume", check=False)


@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_cve_2021_20188_sets_in_every_way_in(
    daemon: TestDaemon, privileged: bool, added: bool
) -> None:
    """A12, A21: {plain, cap-add, privileged} x {root, another} x {run, exec, exec --privileged}."""
    options = {"privileged": privileged, "cap_add": ["SYS_TIME"] if added else []}
    health = {"test": ["CMD-SHELL", "cat /proc/self/status >/health"], "interval": 10**8}
    with (
        connected(daemon) as client,
        running(
            client, "sh", "-c", "cat /proc/1/status; sleep 60", healthcheck=health, **options
        ) as container,
        running(
            client, "sh", "-c", "cat /proc/1/status; sleep 60", user="1000", **options
        ) as other,
    ):
        for box, owner in ((container, ""), (other, "1000")):
            first = facts(box.exec_run(["cat", "/proc/1/status"], user="0")[1])
            check(first, root=not owner)
            for user in ("", "0", "1000"):
                for more in (False, True):
                    code, output = box.exec_run(
                        ["cat", "/proc/self/status"], user=user, privileged=more
                    )
                    assert code == 0
                    sets = facts(output)
                    check(sets, root=(user or owner or "0") == "0")
                    if not privileged and not more:
                        expected = int(MASK, 16) | (1 << 25 if added else 0)
                        assert int(sets["CapBnd"], 16) == expected
        check(facts(wait_until(lambda: written(container, "/health"))), root=True)


def test_a_container_in_anothers_pid_namespace_sees_that_one_s_processes(
    daemon: TestDaemon,
) -> None:
    """A3: by a forerunner that is none of the shim's copies; one that fails leaves nothing."""
    with (
        connected(daemon) as client,
        running(client, "sleep", "77", cap_add=["SYS_PTRACE"]) as container,
    ):
        run = ("run", "--rm", "--pid", f"container:{container.id}", "busybox")
        for _ in range(3):
            assert "sleep 77" in daemon.docker(*run, "ps").stdout
        failed = daemon.docker(*run, "no-such-program", check=False)
        assert failed.returncode == 127
        listing = container.exec_run(["ps", "-o", "args"])[1].decode().splitlines()
        assert listing == ["COMMAND", "sleep 77", "ps -o args"]


def health_of(container: Any) -> str:
    container.reload()
    status: str = container.attrs["State"]["Health"]["Status"]
    return status


def written(container: Any, path: str) -> bytes:
    """Return a file of a container, or nothing while it is not there."""
    code, content = container.exec_run(["cat", path])
    return b"" if code else bytes(content)


def facts(text: bytes) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.decode().splitlines() if ":\t" in line)


def check(sets: dict[str, str], *, root: bool) -> None:
    assert (sets["CapInh"], sets["CapAmb"]) == (NONE, NONE)
    expected = sets["CapBnd"] if root else NONE
    assert (sets["CapPrm"], sets["CapEff"]) == (expected, expected)


def test_cve_2022_36109_groups_of_an_added_process(daemon: TestDaemon) -> None:
    """A20: everybody but the group may read; a member must not, by exec either."""
    with connected(daemon) as client, running(client, "sleep", "60") as container:
        container.exec_run(["sh", "-c", "echo s >/secret; chgrp 50 /secret; chmod 704 /secret"])
        script = ["sh", "-c", "grep Groups: /proc/self/status; cat /secret"]
        for user in ("nobody", "1000:50", "nobody:staff"):
            code, output = container.exec_run(script, user=user)
            assert code != 0, output
            assert b"50" in output.split(b"\n")[0].split(), output
            assert b"Permission denied" in output


def test_cve_2021_43784_what_is_too_long_is_refused_or_arrives_whole(daemon: TestDaemon) -> None:
    """A13: 70 KiB labels, one variable past the kernel's limit, 10 MiB of them."""
    label = "l" * (70 << 10)
    with connected(daemon) as client:
        with running(client, "sleep", "60", labels={"big": label, label: "x"}) as container:
            container.reload()
            labels = container.attrs["Config"]["Labels"]
            assert (labels["big"], labels[label]) == (label, "x")
        for environment in ({"A": "a" * (140 << 10)}, {f"V{n}": "x" * 90 for n in range(100_000)}):
            made = client.containers.create("busybox", ["env"], environment=environment)
            try:
                made.start()
                assert made.wait()["StatusCode"] != 0
                assert b"rgument list too long" in made.logs()[:1000]
            finally:
                made.remove(force=True)
        output = client.containers.run("busybox", ["echo", "still here"], remove=True)
        assert output == b"still here\n"
