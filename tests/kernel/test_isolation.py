"""Kernel tests of the isolation every other kernel test stands on."""

import os
import subprocess
from pathlib import Path

import pytest

from cais.testing.isolation import IsolatedBodyError, isolated


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


def test_a_body_that_hangs_is_killed() -> None:
    with pytest.raises(IsolatedBodyError, match="did not end"):
        isolated(lambda: os.execv("/bin/sleep", ["sleep", "600"]), timeout_s=0.3)
