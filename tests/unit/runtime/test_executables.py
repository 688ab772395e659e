"""Unit tests of the executable lookup: where it looks, and the texts Docker's clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cais.runtime.executable import find_executable
from cais.runtime.launch import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

NONE = (0, 0)


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    for name, mode in (("run", 0o755), ("data", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "dir").mkdir()
    return tmp_path


def test_the_search_path_of_the_container_is_used(bin_: Path) -> None:
    env = [b"PATH=/ignored", f"PATH=/nowhere:{bin_}".encode()]
    assert find_executable("run", env, NONE) == f"{bin_}/run".encode()


def test_a_name_with_a_slash_is_not_searched(bin_: Path) -> None:
    assert find_executable(f"{bin_}/run", [], NONE) == f"{bin_}/run".encode()


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH', "not-found"),
        ("data", 'exec: "data": executable file not found in $PATH', "not-found"),
        ("{0}/no", 'exec: "{0}/no": stat {0}/no: no such file or directory', "not-found"),
        ("{0}/data/x", 'exec: "{0}/data/x": stat {0}/data/x: not a directory', "not-found"),
        ("{0}/data", 'exec: "{0}/data": permission denied', "not-permitted"),
        ("{0}/dir", 'exec: "{0}/dir": is a directory', "not-permitted"),
    ],
)
def test_failures(bin_: Path, name: str, message: str, kind: str) -> None:
    with pytest.raises(LaunchError) as failed:
        find_executable(name.format(bin_), [f"PATH={bin_}".encode()], NONE)
    assert (failed.value.message, failed.value.kind) == (message.format(bin_), kind)


def test_a_program_in_the_working_directory_is_refused(
    bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bin_)
    with pytest.raises(LaunchError, match="relative to current directory"):
        find_executable("run", [b"PATH=.:/bin"], NONE)


def test_our_own_program_is_never_executed(bin_: Path) -> None:
    status = (bin_ / "run").stat()
    (bin_ / "link").symlink_to(bin_ / "run")
    with pytest.raises(LaunchError, match="permission denied"):
        find_executable(f"{bin_}/link", [], (status.st_dev, status.st_ino))
