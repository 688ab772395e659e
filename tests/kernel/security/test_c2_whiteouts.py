"""SECURITY.md C2: whiteouts hide names of lower layers and nothing else."""

import io
import os
import stat
from pathlib import Path

import pytest

from cais.images.layer_names import InvalidLayerError
from cais.snapshots.snapshotter import Layer
from cais.testing.raw_tar import Member, fingerprint, tar
from cais.testing.unpacking import apply_layer


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    upper, lower = tmp_path / "1", tmp_path / "2"
    (lower / "a/b").mkdir(parents=True)
    (lower / "a/file").write_text("x")
    (lower / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (lower / "link").symlink_to(tmp_path / "outside")
    upper.mkdir()
    return upper, lower


def unpack(layers: tuple[Path, Path], *members: Member) -> None:
    upper, lower = map(os.fspath, layers)
    apply_layer(io.BytesIO(tar(members)), Layer(upper, (lower,)))


@pytest.mark.parametrize(
    "name",
    [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh./x", "a/.wh.../x", ".wh.a/x"],
)
def test_a_whiteout_of_no_plain_name_is_refused(
    tmp_path: Path, layers: tuple[Path, Path], name: str
) -> None:
    before = fingerprint(tmp_path / "outside"), fingerprint(layers[1])
    with pytest.raises(InvalidLayerError, match="layer entry"):
        unpack(layers, Member(name))
    assert (fingerprint(tmp_path / "outside"), fingerprint(layers[1])) == before


@pytest.mark.parametrize("name", ["link/.wh.file", "link/.wh..wh..opq"])
def test_a_whiteout_through_a_link_stays_inside(
    tmp_path: Path, layers: tuple[Path, Path], name: str
) -> None:
    before = fingerprint(tmp_path / "outside"), fingerprint(layers[1])
    unpack(layers, Member(name))
    assert (fingerprint(tmp_path / "outside"), fingerprint(layers[1])) == before
    assert os.listdir(layers[0]) == []


@pytest.mark.parametrize("name", ["a/.wh.b", "a/.wh..wh..opq"])
def test_a_whiteout_below_a_link_to_itself_hides_nothing(
    layers: tuple[Path, Path], name: str
) -> None:
    """As umoci writes them where a directory has become such a link."""
    unpack(layers, Member("a", kind=b"2", link="a"), Member(name))
    assert os.listdir(layers[0]) == ["a"]
    assert os.readlink(layers[0] / "a") == "a"


def test_whiteouts_are_devices_only_where_something_is_hidden(layers: tuple[Path, Path]) -> None:
    unpack(layers, Member(".wh.file"), Member(".wh.nothing"), Member("a/.wh.b"))
    assert sorted(os.listdir(layers[0])) == ["a", "file"]
    for path in (layers[0] / "file", layers[0] / "a/b"):
        facts = path.lstat()
        assert stat.S_ISCHR(facts.st_mode)
        assert facts.st_rdev == 0


def test_opaque_is_an_attribute_of_a_directory_that_a_lower_layer_has(
    layers: tuple[Path, Path],
) -> None:
    unpack(layers, Member("a/.wh..wh..opq"), Member("new/.wh..wh..opq"))
    assert os.listdir(layers[0]) == ["a"]
    assert os.getxattr(layers[0] / "a", "trusted.overlay.opaque") == b"y"


def test_in_the_first_layer_whiteouts_are_nothing(tmp_path: Path) -> None:
    members = [Member(".wh.x"), Member("d/.wh..wh..opq"), Member(".wh..wh..opq"), Member("y", b"y")]
    apply_layer(io.BytesIO(tar(members)), Layer(os.fspath(tmp_path), ()))
    assert os.listdir(tmp_path) == ["y"]
    assert os.listxattr(tmp_path) == []


def test_an_ordinary_device_0_0_hides_like_in_docker(layers: tuple[Path, Path]) -> None:
    device = Member("file", kind=b"3", device=(0, 0))
    unpack(layers, device, Member("other", kind=b"3", device=(0, 0)))
    assert os.listdir(layers[0]) == ["file"]
