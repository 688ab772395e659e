import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cais.testing.shims import ShimProcess


@pytest.fixture
def shim() -> Iterator[ShimProcess]:
    with tempfile.TemporaryDirectory(prefix="shim-") as root, ShimProcess(Path(root)) as process:
        yield process
        assert "Traceback" not in process.journal, process.journal
