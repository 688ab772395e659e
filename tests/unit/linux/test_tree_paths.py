"""Unit tests of cais.linux.paths on trees of somebody else's making."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cais.linux import paths
from cais.linux.syscalls import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield root, fd
    os.close(fd)
    assert os.listdir(tmp_path / "outside") == []


def test_directories_are_made_with_their_parents(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    os.close(paths.ensure_directory(root_fd, "/a/b/c", 0o700))
    assert (root / "a/b/c").is_dir()
    os.close(paths.ensure_directory(root_fd, "a/b/c"))
    assert (root / "a/b/c").stat().st_mode & 0o777 == 0o700


def test_a_path_as_long_as_there_is_one_is_made(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    path = "/i" * 2000
    before = len(os.listdir("/proc/self/fd"))
    fd = paths.ensure_directory(root_fd, path)
    again = paths.open_in_root(root_fd, path)
    assert os.path.samestat(os.fstat(fd), os.fstat(again))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    for each in (fd, again):
        os.close(each)
    subprocess.run(["rm", "-r", root / "i"], check=True)  # too deep for Python's


def test_dots_and_links_behind_what_is_missing(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "a").symlink_to("b/./c/../d")
    os.close(paths.ensure_directory(root_fd, "/a/../e/."))
    assert sorted(os.listdir(root / "b")) == ["c", "d", "e"]


@pytest.mark.parametrize("target", ["/b", "b", "../../b", "{outside}", "/x/../b"])
def test_links_stay_inside(tree: tuple[Path, int], target: str) -> None:
    root, root_fd = tree
    (root / "a").symlink_to(target.format(outside=root.parent / "outside"))
    fd = paths.ensure_directory(root_fd, "/a/new")
    assert os.readlink(f"/proc/self/fd/{fd}").startswith(f"{root}/")
    os.close(fd)


def test_a_dangling_link_to_a_file_is_made_good_inside(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    fd = paths.ensure_file(root_fd, "/etc/resolv.conf")
    assert os.readlink(f"/proc/self/fd/{fd}") == str(root / "run/resolv.conf")
    os.close(fd)


def test_an_existing_file_is_left_alone(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "f").write_text("kept")
    os.close(paths.ensure_file(root_fd, "f"))
    assert (root / "f").read_text() == "kept"


def test_loops_end(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    for call in (paths.ensure_directory, paths.ensure_file):
        with pytest.raises(KernelError) as failed:
            call(root_fd, "/a/x")
        assert failed.value.errno == errno.ELOOP


def test_a_file_in_the_way_is_an_error(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "f").write_text("")
    with pytest.raises(KernelError) as failed:
        paths.ensure_directory(root_fd, "/f/x")
    assert failed.value.errno == errno.ENOTDIR


def test_magic_links_are_refused(tree: tuple[Path, int]) -> None:
    proc_fd = os.open("/proc/self", os.O_PATH)
    with pytest.raises(KernelError) as failed:
        paths.open_in_root(proc_fd, "root/etc")
    assert failed.value.errno == errno.ELOOP
    os.close(proc_fd)
    assert tree


def test_created_files_refuse_an_existing_name(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "l").symlink_to("/nowhere")
    with pytest.raises(FileExistsError):
        paths.create_file(root_fd, "l")


def test_the_type_of_a_file_system() -> None:
    fd = os.open("/proc/self/status", os.O_PATH)
    assert paths.filesystem_type(fd) == paths.PROC_SUPER_MAGIC
    os.close(fd)
