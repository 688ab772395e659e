"""The disks of virtual machines that are kept: the newest of each kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from guest_disks import keep_newest

if TYPE_CHECKING:
    from pathlib import Path


def test_the_last_used_are_kept(tmp_path: Path) -> None:
    for age in range(6):
        disk, system = tmp_path / f"tools-{age}.img", tmp_path / f"system-{age}"
        system.mkdir()
        (system / "kernel").touch()
        disk.touch()
        for path in (disk, system):
            os.utime(path, (1000 - age, 1000 - age))
    keep_newest(tmp_path / "tools-5.img", "tools-*", 3)
    assert {path.name for path in tmp_path.glob("tools-*")} == {
        *("tools-5.img", "tools-0.img", "tools-1.img"),
    }
    keep_newest(tmp_path / "system-4", "system-*", 2)
    assert {path.name for path in tmp_path.glob("system-*")} == {"system-4", "system-0"}
