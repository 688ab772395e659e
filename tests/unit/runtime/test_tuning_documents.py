"""Scheduler, affinity and memory policy as decided before a process exists."""

from __future__ import annotations

import ctypes

import pytest

from cais.errors import InvalidArgumentError
from cais.linux import personality, scheduling
from cais.runtime.tuning import Tuning, parse_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("0", [0]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7, 0-1 ,1", [0, 1, 7]),
        ("1,,2", [1, 2]),
    ],
)
def test_lists_of_numbers(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text, 8, "x") == numbers


@pytest.mark.parametrize("text", ["-", "1-", "-1", "3-1", "8", "0-8", "1-2-3", "9" * 100, "a", "٣"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid memoryPolicy"):
        parse_numbers(text, 8, "memoryPolicy.nodes")


def test_only_an_exec_has_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[list[int]] = []
    monkeypatch.setattr("os.sched_setaffinity", lambda _, cpus: used.append(list(cpus)))
    process = {"args": ["x"], "cwd": "/", "execCPUAffinity": {"initial": "1", "final": "2-3"}}
    for is_exec in (False, True):
        tuning = Tuning(process, None, is_exec=is_exec)  # type: ignore[arg-type]
        assert tuning.has_initial_cpus == is_exec
        tuning.use_initial_cpus()
        tuning.use_final_cpus()
    assert used == [[1], [2, 3]]


def test_without_final_processors_all_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[list[int]] = []
    monkeypatch.setattr("os.sched_setaffinity", lambda _, cpus: used.append(list(cpus)))
    process = {"args": ["x"], "cwd": "/", "execCPUAffinity": {"initial": "1"}}
    Tuning(process, None, is_exec=True).use_final_cpus()  # type: ignore[arg-type]
    assert used[0][:3] == [0, 1, 2]
    Tuning({}, None, is_exec=True).use_final_cpus()
    assert len(used) == 1


def test_the_structure_is_the_kernel_s() -> None:
    assert ctypes.sizeof(scheduling.SchedulingAttributes) == 48  # SCHED_ATTR_SIZE_VER0


def test_personality_flags_add_up() -> None:
    flags = ["ADDR_NO_RANDOMIZE", "READ_IMPLIES_EXEC"]
    assert personality.parse_personality("LINUX32", flags) == 0x440008
    with pytest.raises(InvalidArgumentError, match="unknown personality flag 'X'"):
        personality.parse_personality("LINUX", ["X"])
    with pytest.raises(InvalidArgumentError, match="invalid personality domain"):
        personality.parse_personality("BSD", [])
