"""What a worker is made of stays small: all of it is there for a hostile layer to play with."""

import subprocess
import sys
from pathlib import Path

import zstandard

import cais

SOURCE = str(Path(cais.__file__).parent.parent)
OTHERS = str(Path(zstandard.__file__).parent.parent)
FORBIDDEN = {
    *("asyncio", "dataclasses", "email", "http", "inspect", "json", "logging", "msgspec"),
    *("pathlib", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "urllib"),
}


def test_the_warden_loads_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path[:0] = [{SOURCE!r}]; sys.path.append({OTHERS!r}); "
        "import cais.images.unpacker.warden as warden; print(*sys.modules)"
    )
    listing = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in listing.stdout.split()}
    assert loaded & FORBIDDEN == set()
    rooms = {name.split(".")[1] for name in listing.stdout.split() if name.startswith("cais.")}
    assert rooms <= {"errors", "images", "linux", "runtime", "spec"}
