"""``guest_tests.txt``: every kernel test has its machine, and nothing in it has moved away."""

from __future__ import annotations

from pathlib import PurePath

import pytest
import run_qemu
from guest_disks import CHECKOUT


def listed(machine: str) -> list[PurePath]:
    words = [word for word in run_qemu.listed(machine) if not word.startswith("-")]
    return [PurePath(word.partition("::")[0]) for word in words]


def test_every_kernel_test_is_in_one_machine() -> None:
    places = [place for machine in run_qemu.machines() for place in listed(machine)]
    for path in (CHECKOUT / "tests/kernel").rglob("test_*.py"):
        name = path.relative_to(CHECKOUT)
        found = [place for place in places if name.is_relative_to(place)]
        assert len(found) == 1, (name, found)


@pytest.mark.parametrize("machine", [run_qemu.QUICK, *run_qemu.machines()])
def test_what_is_listed_is_there(machine: str) -> None:
    assert [place for place in listed(machine) if not (CHECKOUT / place).exists()] == []


def test_a_machine_that_is_not_listed_is_refused() -> None:
    with pytest.raises(SystemExit, match="nothing for a machine called 'nosuch'"):
        run_qemu.listed("nosuch")
