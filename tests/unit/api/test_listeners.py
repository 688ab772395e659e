"""Sockets of ``-H`` and the pid file."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator

import pytest

from cais.api.daemon import PidFile, make_directory
from cais.api.listeners import UnixAddress, UnixListener, find_group
from cais.errors import ConflictError, InvalidArgumentError


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="cais-l-") as name:  # a socket's path has 107 bytes
        yield name


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_socket_is_for_root_and_group_only(directory: str, umask: int) -> None:
    previous = os.umask(umask)
    try:
        listener = UnixListener(UnixAddress(f"{directory}/s"), os.getgid())
        assert mode(listener.path) == 0o660
        listener.close()
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert not os.path.exists(listener.path)


def test_directory_is_made(directory: str) -> None:
    UnixListener(UnixAddress(f"{directory}/a/b/s"), -1).close()
    assert mode(f"{directory}/a/b") == 0o711


def test_left_over_socket_is_replaced(directory: str) -> None:
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    UnixListener(UnixAddress(path), -1).close()


def test_answering_socket_is_left_alone(directory: str) -> None:
    first = UnixListener(UnixAddress(f"{directory}/s"), -1)
    with pytest.raises(ConflictError, match="another daemon answers there"):
        UnixListener(UnixAddress(f"{directory}/s"), -1)
    assert os.path.exists(first.path)
    first.close()


def test_file_is_left_alone(directory: str) -> None:
    path = f"{directory}/s"
    os.close(os.open(path, os.O_CREAT))
    with pytest.raises(ConflictError, match="the path exists"):
        UnixListener(UnixAddress(path), -1)


def test_close_leaves_a_successor_alone(directory: str) -> None:
    first = UnixListener(UnixAddress(f"{directory}/s"), -1)
    os.unlink(first.path)
    second = UnixListener(UnixAddress(first.path), -1)
    first.close()
    assert os.path.exists(second.path)
    second.close()


def test_group_by_name_or_number() -> None:
    assert find_group("root") == 0
    assert find_group("4242") == 4242
    with pytest.raises(InvalidArgumentError, match="group no-such-group not found"):
        find_group("no-such-group")


def test_pid_file_is_a_lock(directory: str) -> None:
    from pathlib import Path

    path = Path(directory, "d", "pid")
    first = PidFile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    with pytest.raises(ConflictError, match=f"process with PID {os.getpid()} is still running"):
        PidFile(path)
    first.close()
    assert not path.exists()
    path.write_text("1\n")  # left over from a crash, its pid taken by somebody
    PidFile(path).close()


def test_make_directory_sets_the_mode_exactly(directory: str) -> None:
    from pathlib import Path

    path = Path(directory, "x")
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    make_directory(path, 0o710)
    assert mode(str(path)) == 0o710
