"""The init that runtimes of others are given as a file."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cais.engine.init_program import ensure_init_program
from cais.engine.paths import Paths
from cais.runtime import reaper

if TYPE_CHECKING:
    from pathlib import Path


def test_another_version_s_is_replaced(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    paths.init_program.write_bytes(b"older")
    umask = os.umask(0o077)
    try:
        path = ensure_init_program(paths)
    finally:
        os.umask(umask)
    assert paths.init_program.read_bytes() == reaper.program()
    assert os.stat(path).st_mode & 0o777 == 0o755
    facts = os.stat(path)
    assert ensure_init_program(paths) == path
    assert os.stat(path) == facts


def test_starts_at_once_find_it_whole(tmp_path: Path) -> None:
    program, parallel = reaper.program(), 4
    together = threading.Barrier(parallel)

    def start(paths: Paths) -> str:
        together.wait()
        return ensure_init_program(paths)

    with ThreadPoolExecutor(parallel) as pool:
        for number in range(100):
            root = tmp_path / str(number)
            root.mkdir()
            (path,) = set(pool.map(start, [Paths(root, root)] * parallel))
            with open(path, "rb") as file:
                assert file.read() == program
            assert os.listdir(root) == [os.path.basename(path)]
