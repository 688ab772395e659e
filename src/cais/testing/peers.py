"""Programs of others that tests compare with: `make test` installs them."""

from __future__ import annotations

import shutil

import pytest


def installed(program: str) -> str:
    """Return where a peer is; without it the test fails, which a skipped one would hide."""
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is not installed: scripts/system-packages.sh test")
    return path
