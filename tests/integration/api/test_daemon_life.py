"""caisd as a program: its start, its signals, its sockets and its end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cais.network.manager import POOL_SIZE
from cais.testing.daemon import TestDaemon
from cais.testing.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def ask(path: Path, request: bytes) -> bytes:
    """Send bytes, read to the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        sock.sendall(request)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        return answer


PING = b"GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def second(daemon: TestDaemon, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Start another daemon with the same places but for ``changes``."""
    places = {
        "host": f"unix://{daemon.directory}/second.sock",
        "data-root": str(daemon.directory / "data2"),
        "exec-root": str(daemon.directory / "exec2"),
        "pidfile": str(daemon.directory / "second.pid"),
        **changes,
    }
    flags = [f"--{name}={value}" for name, value in places.items()]
    return subprocess.run(
        [*daemon.enter_namespaces, sys.executable, "-m", "cais.wiring", *flags],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def test_places_are_private(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(load=False)
    assert mode(daemon.socket_path) == 0o660
    assert mode(daemon.data_root) == 0o710
    assert mode(daemon.exec_root) == 0o711
    assert "\n" in (daemon.directory / "caisd.pid").read_text()


def test_second_daemon_is_refused_and_the_first_unharmed(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon(load=False)
    for changes, text in (
        ({"data-root": str(daemon.data_root)}, "is in use by another caisd"),
        ({"host": daemon.host}, "another daemon answers there"),
        ({"pidfile": str(daemon.directory / "caisd.pid")}, "is still running"),
    ):
        result = second(daemon, **changes)
        assert result.returncode == 1
        assert text in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
    assert ask(daemon.socket_path, PING).endswith(b"OK")


def test_sigterm_ends_it_in_spite_of_open_streams(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon(load=False)
    with socket.socket(socket.AF_UNIX) as events, socket.socket(socket.AF_UNIX) as idle:
        for sock in (events, idle):
            sock.connect(str(daemon.socket_path))
        events.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in events.recv(4096)
        assert daemon.stop() == 0
    assert not daemon.socket_path.exists()
    assert not (daemon.directory / "caisd.pid").exists()


def test_sighup_changes_the_log_level(fresh_daemon: Callable[..., TestDaemon]) -> None:
    with _config_file() as path:
        daemon = fresh_daemon("--config-file", str(path), load=False)
        pid = int((daemon.directory / "caisd.pid").read_text())
        path.write_text(json.dumps({"debug": True}))
        _signal_and_wait(daemon, pid, "Reloaded configuration")
        ask(daemon.socket_path, PING.replace(b"_ping", b"nowhere"))
        assert "page not found" in daemon.log_path.read_text()
        path.write_text("{")
        _signal_and_wait(daemon, pid, "reload: unable to configure the daemon")
        assert ask(daemon.socket_path, PING).endswith(b"OK")


def test_readiness_is_notified(fresh_daemon: Callable[..., TestDaemon], tmp_path: Path) -> None:
    path = tmp_path / "n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(PATIENCE_S)
        os.environ["NOTIFY_SOCKET"] = str(path)
        try:
            daemon = fresh_daemon(load=False)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert notify.recv(100).startswith(b"READY=1\nMAINPID=")
        daemon.stop()
        assert notify.recv(100) == b"STOPPING=1"


def test_plain_tcp_is_refused(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(load=False)
    result = second(daemon, host="tcp://127.0.0.1:2375")
    assert result.returncode == 1
    assert "without verifying the clients' certificates is refused" in result.stderr


def test_garbage_and_thousands_of_silent_clients(daemon: TestDaemon) -> None:
    """SECURITY.md G3: nobody else notices, nothing is left behind."""
    pid = int((daemon.directory / "caisd.pid").read_text())
    # The stock of ready namespaces, two descriptors each, may be filled only now.
    allowed = _descriptors(daemon, pid) + 2 * POOL_SIZE + 2
    silent = []
    try:
        for number in range(3000):
            sock = socket.socket(socket.AF_UNIX)
            silent.append(sock)
            sock.connect(str(daemon.socket_path))
            if number % 2:
                sock.sendall(b"GET /_ping HT")
        assert ask(daemon.socket_path, PING).endswith(b"OK")
    finally:
        for sock in silent:
            sock.close()
    for _ in range(200):
        answer = ask(daemon.socket_path, os.urandom(200) + b"\r\n\r\n")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert "Traceback" not in daemon.log_path.read_text()
    wait_until(lambda: _descriptors(daemon, pid) <= allowed, "descriptors are left")


def _descriptors(daemon: TestDaemon, pid: int) -> int:
    listing = daemon.run_inside(["ls", f"/proc/{pid}/fd"])
    return len(listing.stdout.split())


def _signal_and_wait(daemon: TestDaemon, pid: int, text: str) -> None:
    daemon.run_inside(["kill", f"-{signal.SIGHUP.value}", str(pid)])
    wait_until(lambda: text in daemon.log_path.read_text())


def _config_file() -> Any:
    import contextlib
    import tempfile

    @contextlib.contextmanager
    def made() -> Any:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "daemon.json")
            path.write_text("{}")
            yield path

    return made()


def test_the_callers_directory_and_environment_decide_no_import(daemon: TestDaemon) -> None:
    command = Path(f"/proc/{daemon.pid}/cmdline").read_bytes().split(b"\0")
    assert command[1:5] == [b"-I", b"-B", b"-m", b"cais.wiring"]
