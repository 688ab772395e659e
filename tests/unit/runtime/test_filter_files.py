"""Compiled filters as the engine leaves them for the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cais.errors import InvalidArgumentError
from cais.linux.seccomp import loader
from cais.runtime import filters

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_no_program_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "filter"
    for content in (b"", b"CSF1", b"CSF1" + bytes(11), b"XXXX" + bytes(12)):
        path.write_bytes(content)
        filters._programs.clear()
        with pytest.raises(InvalidArgumentError, match="not a compiled filter"):
            filters.load({}, {"seccomp": str(path)})
    with pytest.raises(InvalidArgumentError, match=r"(?i)no such file"):
        filters.load({}, {"seccomp": f"{path}-absent"})


def test_a_program_says_whether_somebody_must_listen(tmp_path: Path) -> None:
    for flags, expected in ((0, False), (loader.LOG, False), (loader.NEW_LISTENER, True)):
        path = tmp_path / str(flags)
        path.write_bytes(loader.pack(bytes(8), flags))
        found = filters.load({}, {"seccomp": str(path)})
        assert found is not None
        assert found.has_listener == expected
    assert filters.load({}, {}) is None
