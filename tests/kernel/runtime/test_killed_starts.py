"""SECURITY.md F-3: the process that becomes a container is killed at any moment of its start.

Whoever started it is told, and nothing of the container is left: mounts, processes, descriptors.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from cais.runtime import spares
from cais.runtime.launch import LaunchError
from cais.runtime.nursery import Nursery
from cais.testing.bundles import Bundle
from cais.testing.isolation import children, isolated
from cais.testing.stopped_calls import run_stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROC: dict[str, Any] = {"destination": "/proc", "type": "proc", "source": "proc"}
STEP = 3
"""Calls between two moments; the first and the last are always among them."""


def start(bundle: Bundle) -> str:
    """Return how a start ended whose process is cloned for it."""
    try:
        result = bundle.run("true")
    except LaunchError as refused:
        return json.dumps(["refused", refused.kind, str(refused)])
    return json.dumps(["ran", result.code])


def start_by_spare(bundle: Bundle) -> str:
    """Return the same of a start that takes a process cloned ahead."""
    nursery = Nursery()
    coming = nursery.order()
    coming.wait()
    spares.add(coming.admit())
    said = start(bundle)
    assert spares.count() == 0
    nursery.close()
    assert not list(children())
    return said


@pytest.mark.parametrize("way", [start, start_by_spare])
def test_a_start_that_is_killed_is_told_and_leaves_nothing(
    tmp_path: Path, way: Callable[[Bundle], str]
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path / "bundle", "cais-killed")
        bundle.config["mounts"] = [PROC]
        try:
            calls = killed_at(bundle, way, -1)[0]
            assert calls > STEP
            moments = sorted({*range(0, calls, STEP), calls - 1})
            told = [killed_at(bundle, way, moment)[1] for moment in moments]
            refused = [said for said in told if said[0] == "refused"]
            assert len(refused) > len(told) // 2
            # A process that only helped had perhaps done all that was asked of it.
            assert [said for said in told if said not in refused and said != ["ran", 0]] == []
            assert killed_at(bundle, way, -1)[1] == ["ran", 0]
        finally:
            bundle.destroy()

    isolated(body, timeout_s=110)


def killed_at(bundle: Bundle, way: Callable[[Bundle], str], moment: int) -> tuple[int, list[Any]]:
    """Kill a process of a start before a call; return how many there were, and what was told."""
    calls = 0

    def kill(pid: int, _: int) -> None:
        nonlocal calls
        if calls == moment:
            os.kill(pid, signal.SIGKILL)
        calls += 1

    said: list[Any] = json.loads(run_stopped(lambda: way(bundle), kill))
    return calls, said
