"""Bytes are neither lost nor changed: filters, logs, slow readers."""

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from cais.testing.daemon import TestDaemon

# The filter is 1 GB; developers on a slow machine may ask for less.
FILTER_BYTES = int(os.environ.get("CAIS_TEST_FILTER_BYTES", str(1 << 30)))
LINES = 100_000


@pytest.mark.timeout(600)  # of random bytes, each of them logged: 30 s on an idle machine
def test_a_filter_of_a_gigabyte_keeps_every_byte(daemon: TestDaemon) -> None:
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    process = subprocess.Popen(
        ["docker", "run", "--rm", "-i", "busybox", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=daemon.environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = os.fork()
    if feeder == 0:
        try:
            process.stdout.close()
            for _ in range(FILTER_BYTES // len(block)):
                process.stdin.write(block)
            process.stdin.close()
        finally:
            os._exit(0)
    process.stdin.close()
    with process.stdout as output:
        while data := output.read(1 << 20):
            received.update(data)
    os.waitpid(feeder, 0)
    for _ in range(FILTER_BYTES // len(block)):
        sent.update(block)
    assert process.wait(60) == 0
    assert received.hexdigest() == sent.hexdigest()


def test_following_logs_loses_no_line(daemon: TestDaemon) -> None:
    script = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i + 1)); done"
    daemon.docker("run", "-d", "--name", "log", "busybox", "sh", "-c", script)
    try:
        followed = daemon.docker("logs", "-f", "log", timeout_s=120).stdout.splitlines()
        assert len(followed) == LINES
        assert followed == [f"line {index}" for index in range(LINES)]
        assert daemon.docker("logs", "--tail", "2", "log").stdout == (
            f"line {LINES - 2}\nline {LINES - 1}\n"
        )
    finally:
        daemon.docker("rm", "-f", "log")


def test_log_options(daemon: TestDaemon) -> None:
    script = "echo one; echo two >&2; sleep 1.2; echo three"
    daemon.docker("run", "--name", "opt", "busybox", "sh", "-c", script)
    try:
        result = daemon.docker("logs", "opt")
        assert (result.stdout, result.stderr) == ("one\nthree\n", "two\n")
        stamped = daemon.docker("logs", "-t", "opt").stdout.splitlines()
        moments = [line.split(" ")[0] for line in stamped]
        assert moments == sorted(moments)
        assert all(moment.endswith("Z") and len(moment) == 30 for moment in moments)
        since = daemon.docker("logs", "--since", moments[1], "opt")
        assert (since.stdout, since.stderr) == ("three\n", "")
        until = daemon.docker("logs", "--until", moments[0], "opt")
        assert until.stdout == "one\n"
    finally:
        daemon.docker("rm", "-f", "opt")


def test_long_lines_and_rotation_on_disk(daemon: TestDaemon) -> None:
    flags = ("--log-opt", "max-size=20k", "--log-opt", "max-file=3")
    script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789abcdef $i; i=$((i + 1)); done"
    daemon.docker("run", "--name", "rot", *flags, "busybox", "sh", "-c", script)
    try:
        path = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", "rot").stdout.strip())
        files = sorted(path.parent.glob(f"{path.name}*"))
        assert len(files) == 3
        assert all(file.stat().st_size <= 21_000 for file in files)
        last = json.loads(path.read_text().splitlines()[-1])
        assert (last["log"], last["stream"]) == ("0123456789abcdef 2999\n", "stdout")
        lines = daemon.docker("logs", "rot").stdout.splitlines()
        assert lines[-1] == "0123456789abcdef 2999"
        numbers = [int(line.split()[1]) for line in lines]
        assert numbers == list(range(numbers[0], 3000))
    finally:
        daemon.docker("rm", "-f", "rot")


def test_a_line_over_16_kib_is_split_in_the_log_only(daemon: TestDaemon) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo"
    result = daemon.docker("run", "--name", "long", "busybox", "sh", "-c", script)
    try:
        assert result.stdout == "x" * 40000 + "\n"
        assert daemon.docker("logs", "long").stdout == "x" * 40000 + "\n"
        path = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", "long").stdout.strip())
        parts = [json.loads(line)["log"] for line in path.read_text().splitlines()]
        assert [len(part) for part in parts] == [16384, 16384, 7233]
    finally:
        daemon.docker("rm", "-f", "long")


def test_a_client_that_stops_reading_does_not_stop_the_container(daemon: TestDaemon) -> None:
    script = (
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i + 1)); done; touch /done; sleep 60"
    )
    daemon.docker("run", "-d", "--name", "slow", "busybox", "sh", "-c", "sleep 1;" + script)
    reader = subprocess.Popen(
        ["docker", "attach", "--no-stdin", "slow"], stdout=subprocess.PIPE, env=daemon.environment
    )
    try:
        reader.send_signal(signal.SIGSTOP)
        check = ("exec", "slow", "sh", "-c", "until [ -e /done ]; do sleep 0.1; done")
        daemon.docker(*check)
    finally:
        reader.kill()
        reader.communicate()
        daemon.docker("rm", "-f", "slow")


@pytest.mark.parametrize("size", [0, 1, 65536])
def test_small_inputs_end(daemon: TestDaemon, size: int) -> None:
    result = daemon.docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin=b"x" * size)
    assert result.stdout == f"{size}\n"
