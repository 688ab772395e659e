"""Limits hold: memory, processor time, processes; read where the kernel enforces them."""

import re
import time

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import wait_until


def test_memory_limit_kills_and_says_so(daemon: TestDaemon) -> None:
    allocate = ("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    result = daemon.docker("run", "--name", "oom", "-m", "64m", "busybox", *allocate, check=False)
    try:
        assert result.returncode == 137, result.stderr
        state = "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}"
        assert daemon.docker("inspect", "-f", state, "oom").stdout == "true 137 exited\n"
    finally:
        daemon.docker("rm", "-f", "oom")
    within = daemon.docker(
        "run", "--rm", "-m", "64m", "busybox", *allocate[:3], "bs=20M", "count=1"
    )
    assert within.returncode == 0


def test_a_container_that_exits_137_by_itself_was_not_out_of_memory(daemon: TestDaemon) -> None:
    daemon.docker(
        "run", "--name", "plain", "-m", "64m", "busybox", "sh", "-c", "exit 137", check=False
    )
    try:
        assert daemon.docker("inspect", "-f", "{{.State.OOMKilled}}", "plain").stdout == "false\n"
    finally:
        daemon.docker("rm", "plain")


def test_half_a_processor(daemon: TestDaemon) -> None:
    read = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null; true"
    out = daemon.docker("run", "--rm", "--cpus", "0.5", "busybox", "sh", "-c", read).stdout
    assert out.split()[0] == "50000", out


def test_who_spins_on_a_fifth_of_a_processor_is_throttled(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "spin", "--cpus", "0.2", "busybox", "sh", "-c",
                  "while :; do :; done")  # fmt: skip
    read = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null; true"

    def throttled() -> int:
        words = daemon.docker("exec", "spin", "sh", "-c", read).stdout.split()
        return int(words[words.index("nr_throttled") + 1])

    try:
        wait_until(throttled, "it was never throttled")
    finally:
        daemon.docker("rm", "-f", "spin")


def test_pids_limit_stops_a_fork_bomb(daemon: TestDaemon) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 600"
    daemon.docker("run", "-d", "--name", "bomb", "--pids-limit", "32", "busybox", "sh", "-c", bomb)
    try:
        peak = 0
        for _ in range(10):
            top = daemon.docker("top", "bomb", check=False).stdout.splitlines()
            peak = max(peak, len(top) - 1)
            time.sleep(0.05)
        assert peak <= 32
        refused = re.compile("can't fork|Resource temporarily unavailable")
        wait_until(
            lambda: refused.search(daemon.docker("logs", "bomb").stderr),
            lambda: f"{peak} at most, {daemon.docker('logs', 'bomb')}, {daemon.docker('ps', '-a')}",
        )
    finally:
        daemon.docker("rm", "-f", "bomb")
    assert not any("bomb" in line for line in daemon.processes().values())


def test_update_changes_a_running_container(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "upd", "-m", "64m", "busybox", "sleep", "600")
    try:
        daemon.docker("update", "-m", "128m", "--memory-swap", "128m", "upd")
        read = (
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
        )
        out = daemon.docker("exec", "upd", "sh", "-c", read, check=False).stdout
        assert out.split()[0] == str(128 << 20)
    finally:
        daemon.docker("rm", "-f", "upd")


def test_pause_stops_time(daemon: TestDaemon) -> None:
    count = "i=0; while :; do i=$((i + 1)); echo $i > /n; done"
    daemon.docker("run", "-d", "--name", "pau", "busybox", "sh", "-c", count)
    try:
        daemon.docker("pause", "pau")
        assert daemon.docker("ps", "--format", "{{.Status}}").stdout.strip().endswith("(Paused)")
        refused = daemon.docker("exec", "pau", "cat", "/n", check=False)
        assert "is paused, unpause the container before exec" in refused.stderr
        daemon.docker("unpause", "pau")
        assert int(daemon.docker("exec", "pau", "cat", "/n").stdout or 0) >= 0
    finally:
        daemon.docker("rm", "-f", "pau")
