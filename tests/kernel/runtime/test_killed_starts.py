"""SECURITY.md F-3: the process that becomes a container is killed at any moment of its start.

Whoever started it is told, and nothing of the container is left: mounts, processes, descriptors.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.stopped_calls import run_stopped

if TYPE_CHECKING:
    from pathlib import Path

PROC: dict[str, Any] = {"destination": "/proc", "type": "proc", "source": "proc"}
STEP = 3
"""Calls between two moments; the first and the last are always among them."""


def start(bundle: Bundle) -> str:
    try:
        result = bundle.run("true")
    except LaunchError as refused:
        return json.dumps(["refused", refused.kind, str(refused)])
    return json.dumps(["ran", result.code])


def test_a_start_that_is_killed_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path / "bundle", "cais-killed")
        bundle.config["mounts"] = [PROC]
        try:
            calls = killed_at(bundle, -1)[0]
            assert calls > STEP
            moments = sorted({*range(0, calls, STEP), calls - 1})
            told = [killed_at(bundle, moment)[1] for moment in moments]
            refused = [said for said in told if said[0] == "refused"]
            assert len(refused) > len(told) // 2
            # A process that only helped had perhaps done all that was asked of it.
            assert [said for said in told if said not in refused and said != ["ran", 0]] == []
            assert killed_at(bundle, -1)[1] == ["ran", 0]
        finally:
            bundle.destroy()

    isolated(body, timeout_s=110)


def killed_at(bundle: Bundle, moment: int) -> tuple[int, list[Any]]:
    """Kill a process of a start before a call; return how many there were, and what was told."""
    calls = 0

    def kill(pid: int, _: int) -> None:
        nonlocal calls
        if calls == moment:
            os.kill(pid, signal.SIGKILL)
        calls += 1

    said: list[Any] = json.loads(run_stopped(lambda: start(bundle), kill))
    return calls, said
