"""Fixtures of the tests that need a daemon: one for the whole session, fresh ones on request."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, settings

from cais.testing.archives import busybox_archive
from cais.testing.daemon import TestDaemon
from cais.testing.isolation import PATIENCE

# How long an example takes says something of the machine only.
settings.register_profile("cais", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cais")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test as much more time as this machine is slower."""
    usual = float(config.getini("timeout"))
    for item in items if PATIENCE != 1 else ():
        own = item.get_closest_marker("timeout")
        limit = (own.args[0] if own else usual) * PATIENCE
        item.add_marker(pytest.mark.timeout(limit), append=False)


def _has_capability(bit: int) -> bool:
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) & (1 << bit))


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    """A docker-archive of busybox:latest."""
    return busybox_archive()


@pytest.fixture
def fresh_daemon(busybox_tar: bytes) -> Iterator[Callable[..., TestDaemon]]:
    """Start daemons of the test's own: ``fresh_daemon("--debug")``; each has busybox loaded."""
    with ExitStack() as stack:

        def start(*arguments: str, load: bool = True) -> TestDaemon:
            daemon = stack.enter_context(
                TestDaemon(stack.enter_context(_short_directory()), *arguments)
            )
            if load:
                daemon.docker("load", stdin=busybox_tar)
            return daemon

        yield start


@pytest.fixture(scope="session")
def daemon(busybox_tar: bytes) -> Iterator[TestDaemon]:
    """The session's daemon, with busybox loaded. Tests leave no container behind."""
    if not _has_capability(21):
        pytest.skip("needs CAP_SYS_ADMIN")
    with _short_directory() as directory, _session_daemon(directory) as started:
        started.docker("load", stdin=busybox_tar)
        yield started


@pytest.fixture(scope="session")
def docker_major() -> int:
    """The docker CLI's version: 20 on Debian 12, 26 on Debian 13."""
    said = subprocess.run(
        ["docker", "--version"], capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r"version (\d+)", said)
    assert match, said
    return int(match[1])


def _session_daemon(directory: Path) -> TestDaemon:
    """Return our daemon, or the peer the environment names: a wrong test fails on the peer too."""
    peer = os.environ.get("CAIS_TEST_PEER")
    return PeerDaemon(directory, peer) if peer else TestDaemon(directory)


class PeerDaemon(TestDaemon):
    """A running dockerd, ``CAIS_TEST_PEER=<pid>:<socket>``, in namespaces of its own."""

    def __init__(self, directory: Path, peer: str) -> None:
        super().__init__(directory)
        pid, _, path = peer.partition(":")
        self.namespaces.pid, self.socket_path = int(pid), Path(path)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        pass


@contextmanager
def _short_directory() -> Iterator[Path]:
    # Not tmp_path: the path of a unix socket has 107 bytes.
    parent = os.environ.get("CAIS_TEST_DIR")
    with tempfile.TemporaryDirectory(
        prefix="cais-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)
