"""Kernel tests of the isolation every other kernel test stands on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cais.testing.isolation import IsolatedBodyError, is_alive, isolated


def test_a_clean_body_passes() -> None:
    isolated(lambda: None)


def test_a_failing_body_reports_its_traceback() -> None:
    def body() -> None:
        raise ValueError("the reason")

    with pytest.raises(IsolatedBodyError, match="the reason"):
        isolated(body)


def test_leftovers_are_named(tmp_path: Path) -> None:
    def mounts() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)

    def descriptors() -> None:
        os.open("/dev/null", os.O_RDONLY)

    def processes() -> None:
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "600"])

    for body in (mounts, descriptors, processes):
        with pytest.raises(IsolatedBodyError, match=f"left behind: {body.__name__[:5]}|children"):
            isolated(body)


def test_a_body_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    def body() -> None:
        subprocess.run(["setsid", "sh", "-c", f"echo $$ >{pid_file}; exec sleep 600"], check=True)

    pid_file = tmp_path / "pid"
    with pytest.raises(IsolatedBodyError, match="did not end"):
        isolated(body, timeout_s=5)
    assert not is_alive(int(pid_file.read_text()))


def test_a_hang_costs_its_test_and_what_it_started_but_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_hang.py").write_text(_HANGING.format(pids=str(tmp_path / "pids")))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=5", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 failed, 1 passed" in run.stdout
    assert "Timeout (>5.0s)" in run.stdout
    assert "def test_that_hangs" in run.stdout
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert not [pid for pid in pids if is_alive(int(pid))]


_HANGING = """
import os, time
from cais.testing.isolation import isolated

def test_that_hangs():
    def body():
        if os.fork() == 0:
            os.setsid()
            tell()
        tell()

    def tell():
        with open({pids!r}, "a") as file:
            print(os.getpid(), file=file)
        time.sleep(600)

    isolated(body)

def test_that_passes():
    pass
"""
