"""SECURITY.md C1: no archive writes, changes or reads anything outside the directory it unpacks to.

Each archive is unpacked beside a sentinel tree whose every byte, mode, owner, time and inode is
compared before and after.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from evil_layers import ARCHIVES, DIR, HARD, SYM, archive_of, make_precious

from cais.errors import InvalidArgumentError
from cais.snapshots.snapshotter import Layer
from cais.testing.raw_tar import Member, fingerprint, tar
from cais.testing.unpacking import apply_layer


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "sentinel"
    make_precious(directory)
    before = fingerprint(directory)
    yield directory
    assert fingerprint(directory) == before


def test_there_are_enough_archives() -> None:
    assert len(ARCHIVES) >= 40


@pytest.mark.parametrize("has_lower", [False, True], ids=["first-layer", "upper-layer"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_nothing_outside_is_touched(
    tmp_path: Path, sentinel: Path, name: str, has_lower: bool
) -> None:
    is_refused = ARCHIVES[name][1]
    upper, lower = tmp_path / "root/1", tmp_path / "root/2"
    upper.mkdir(parents=True)
    lower.mkdir()
    (lower / "a").symlink_to(sentinel)  # a lower layer is as hostile
    archive = archive_of(name, sentinel)
    layer = Layer(os.fspath(upper), (os.fspath(lower),) if has_lower else ())
    before = fingerprint(lower)
    try:
        apply_layer(io.BytesIO(archive), layer)
    except InvalidArgumentError:
        assert is_refused or has_lower
    else:
        assert not is_refused
    assert fingerprint(lower) == before
    assert sorted(os.listdir(tmp_path)) == ["root", "sentinel"]


def test_written_through_a_lower_layers_hostile_link(tmp_path: Path, sentinel: Path) -> None:
    upper, lower = tmp_path / "root/1", tmp_path / "root/2"
    upper.mkdir(parents=True)
    lower.mkdir()
    (lower / "l").symlink_to(sentinel)
    archive = tar([Member("l/file", b"inside"), Member(".wh.l/other", b"x")][:1])
    apply_layer(io.BytesIO(archive), Layer(os.fspath(upper), (os.fspath(lower),)))
    assert (upper / os.fspath(sentinel).lstrip("/") / "file").read_bytes() == b"inside"


def test_legitimate_absolute_links_work(tmp_path: Path) -> None:
    """go-archive 0.3.0 refused these, and with them ordinary Debian images."""
    archive = tar(
        [
            Member("run", kind=DIR, mode=0o755),
            Member("var/run", kind=SYM, link="/run"),
            Member("var/run/lock/file", b"locked"),
            Member("bin", kind=SYM, link="usr/bin"),
            Member("usr/bin", kind=DIR, mode=0o755),
            Member("bin/tool", b"tool"),
            Member("bin/same", kind=HARD, link="/usr/bin/tool"),
        ]
    )
    apply_layer(io.BytesIO(archive), Layer(os.fspath(tmp_path), ()))
    assert (tmp_path / "run/lock/file").read_bytes() == b"locked"
    assert os.path.samefile(tmp_path / "usr/bin/tool", tmp_path / "usr/bin/same")
    assert os.readlink(tmp_path / "var/run") == "/run"
