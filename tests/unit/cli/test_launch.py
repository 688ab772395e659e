"""When a command starts a daemon: only where nobody listens."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cais.cli import launch
from cais.client import Address, Client

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_daemon_that_is_slow_to_answer_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one would take its socket away."""
    monkeypatch.setattr(launch, "PING_TIMEOUT_S", 0.01)
    roots = launch.Roots(str(tmp_path / "data"), str(tmp_path / "exec"), chosen=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        launch.ensure_daemon(Client(Address(str(tmp_path / "socket"))), roots)
    assert [path.name for path in tmp_path.iterdir()] == ["socket"]
