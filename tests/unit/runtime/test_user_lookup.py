"""A18 and A19: names and numbers from a container's passwd and group files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cais.runtime import users
from cais.runtime.launch import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = """root:x:0:0:root:/root:/bin/sh
app:x:1000:1000::/home/app:/bin/sh
1000:x:0:0::/:
 0:x:0:0::/:
0x0:x:0:0::/:
broken:x::0::/:
negative:x:-1:0::/:
digits:x:٣:0::/:
big:x:4294967296:0::/:
short:x:77
"""
GROUP = """root:x:0:
app:x:1000:
extra:x:50:app,other
more:x:51:other,app
500:x:0:
bad:x:zero:app
"""


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return os.open(tmp_path, os.O_PATH)


@pytest.mark.parametrize(
    ("user", "additional", "uid", "groups", "home"),
    [
        ("", [], 0, [0], "/root"),
        ("root", [], 0, [0], "/root"),
        ("app", [], 1000, [1000, 50, 51], "/home/app"),
        ("1000", [], 1000, [1000, 50, 51], "/home/app"),
        ("app:extra", [], 1000, [50], "/home/app"),
        ("app:500", [], 1000, [500], "/home/app"),
        ("app", ["9", "extra", "root"], 1000, [1000, 50, 51, 9, 0], "/home/app"),
        ("1234", [], 1234, [0], "/"),
        ("1234:5678", [], 1234, [5678], "/"),
        (":extra", [], 0, [50], "/root"),
    ],
)
def test_resolution(
    root: int, user: str, additional: list[str], uid: int, groups: list[int], home: str
) -> None:
    found = users.resolve(root, user, additional)
    os.close(root)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, groups[0], groups, home)


@pytest.mark.parametrize(
    ("user", "additional", "message"),
    [
        ("ghost", [], "unable to find user ghost: no matching entries in passwd file"),
        ("app:ghost", [], "unable to find group ghost: no matching entries in group file"),
        ("app", ["ghost"], "Unable to find group ghost: no matching entries in group file"),
        ("4294967296", [], "uids and gids must be in range 0-2147483647"),
        ("2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("0:4294967295", [], "uids and gids must be in range 0-2147483647"),
        ("big", [], "uids and gids must be in range 0-2147483647"),
        ("broken", [], "invalid id '' in the container's passwd or group file"),
        ("negative", [], "invalid id '-1' in the container's passwd or group file"),
        ("digits", [], "invalid id '٣' in the container's passwd or group file"),
        ("-1", [], "uids and gids must be in range 0-2147483647"),
        ("0:-1", [], "uids and gids must be in range 0-2147483647"),
        ("app", ["-1"], "uids and gids must be in range 0-2147483647"),
        ("--1", [], "unable to find user --1: no matching entries in passwd file"),
        ("٣", [], "unable to find user ٣: no matching entries in passwd file"),
    ],
)
def test_refusals(root: int, user: str, additional: list[str], message: str) -> None:
    with pytest.raises(LaunchError) as refused:
        users.resolve(root, user, additional)
    os.close(root)
    assert (refused.value.message, refused.value.kind) == (message, "user")


def test_without_files_numbers_still_work(tmp_path: Path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    assert users.resolve(root, "5:6", []).groups == [6]
    assert users.home_of(root, 0) == "/"
    with pytest.raises(LaunchError, match="unable to find user x"):
        users.resolve(root, "x", [])
    os.close(root)


def test_a_link_out_of_the_root_stays_inside(tmp_path: Path) -> None:
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (tmp_path / "passwd").write_text("spy:x:4:4::/:\n")
    (inside / "etc/passwd").symlink_to("../../passwd")
    root = os.open(inside, os.O_PATH)
    with pytest.raises(LaunchError, match="unable to find user spy"):
        users.resolve(root, "spy", [])
    os.close(root)


@pytest.mark.parametrize("kind", ["fifo", "directory", "large"])
def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "etc").mkdir()
    passwd = tmp_path / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    else:
        with passwd.open("wb") as file:
            file.truncate(users.SIZE_LIMIT_BYTES + 1)
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(LaunchError, match="cannot read /etc/passwd"):
        users.resolve(root, "app", [])
    os.close(root)
