"""Fixtures of the tests of the threat sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from host_sentinel import make_sentinel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return make_sentinel(tmp_path)
