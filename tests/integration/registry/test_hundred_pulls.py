"""A hundred clients pull the same image, and ninety-nine of them go away."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from cais.testing.docker_registry import serving_beside
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

PORT = 5071
IMAGE = f"localhost:{PORT}/team/box"
CLIENTS = 100


@pytest.fixture
def registry(daemon: TestDaemon, tmp_path: Path) -> Iterator[Path]:
    """A registry that holds its layer back until a file ``go`` exists in the directory it gives."""
    command = (sys.executable, "-m", "cais.testing.gated_registry", str(PORT), str(tmp_path))
    with serving_beside(daemon, PORT, *command):
        yield tmp_path
    daemon.docker("rmi", IMAGE, check=False)


def begin(daemon: TestDaemon) -> socket.socket:
    """Ask for the image, as a client that then waits."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(daemon.socket_path))
    target = f"/v1.43/images/create?fromImage={IMAGE.replace('/', '%2F')}&tag=latest"
    client.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    return client


def layers_asked(directory: Path) -> int:
    """Return how often the layer was asked for, after manifest and configuration."""
    with contextlib.suppress(FileNotFoundError):
        lines = (directory / "requests").read_text().splitlines()
        blobs = [line for line in lines if "/blobs/" in line]
        return len(blobs) - len(set(blobs[:1]))
    return 0


def ingests(daemon: TestDaemon) -> list[str]:
    return [path.name for path in (daemon.data_root / "content" / "ingest").iterdir()]


def test_ninety_nine_of_a_hundred_go_away(daemon: TestDaemon, registry: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(begin(daemon)) for _ in range(CLIENTS)]
        wait_until(lambda: layers_asked(registry) == 1)
        said = clients[-1].recv(65536)  # it follows the pull, too
        for client in clients[:-1]:
            client.close()
        assert daemon.docker("version", "--format", "{{.Server.Version}}").stdout
        (registry / "go").touch()
        while b"\r\n0\r\n\r\n" not in said and (more := clients[-1].recv(65536)):
            said += more
    assert b"Digest: sha256:" in said
    assert b"error" not in said
    assert layers_asked(registry) == 1
    assert daemon.docker("images", "-q", IMAGE).stdout
    wait_until(lambda: not ingests(daemon))


def test_all_go_away(daemon: TestDaemon, registry: Path) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(begin(daemon)) for _ in range(CLIENTS)]
        wait_until(lambda: layers_asked(registry) == 1)
        for client in clients:
            client.close()
    wait_until(lambda: not ingests(daemon))
    assert not daemon.docker("images", "-q", IMAGE).stdout
    (registry / "go").touch()
    assert "Downloaded newer image" in daemon.docker("pull", IMAGE).stdout
