"""Starting a shim that does not come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from cais.errors import UnavailableError
from cais.shim import launcher

if TYPE_CHECKING:
    from pathlib import Path


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = [sys.executable, "-c", "import signal; signal.pause()"]
    monkeypatch.setattr(launcher, "command", lambda _args: endless)
    with pytest.raises(UnavailableError, match=r"the shim of .* did not start within 0\.1 s"):
        launcher.launch(str(tmp_path / "data"), str(tmp_path / "run"), timeout_s=0.1)
