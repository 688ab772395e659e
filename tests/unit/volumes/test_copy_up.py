"""Copy-up without privilege: what is found where, and when a volume is left alone."""

import os
from pathlib import Path

import pytest

from cais.errors import InvalidArgumentError
from cais.volumes.copyup import copy_merged


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layers, the topmost first."""
    found = [tmp_path / f"layer{number}" for number in range(3)]
    for layer in found:
        layer.mkdir()
    return found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "volume" / "_data"
    path.mkdir(parents=True)
    return path


def write(layer: Path, path: str, text: str = "") -> Path:
    file = layer / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def copy(layers: list[Path], path: str, target: Path) -> bool:
    return copy_merged([str(layer) for layer in layers], path, str(target))


def test_the_uppermost_of_each_name_counts(layers: list[Path], target: Path) -> None:
    write(layers[2], "etc/app/a", "low")
    write(layers[2], "etc/app/b", "low")
    write(layers[0], "etc/app/a", "high")
    write(layers[1], "etc/app/sub/c", "middle")
    assert copy(layers, "/etc//app/", target)
    assert {str(p.relative_to(target)) for p in target.rglob("*")} == {"a", "b", "sub", "sub/c"}
    assert (target / "a").read_text() == "high"
    assert os.listdir(target.parent) == ["_data"]


def test_links_of_the_path_stay_in_the_image(layers: list[Path], target: Path) -> None:
    write(layers[2], "etc/shadow", "the image's")
    os.symlink("../../../../etc", layers[0] / "data")
    assert copy(layers, "/data", target)
    assert (target / "shadow").read_text() == "the image's"


def test_a_link_in_one_layer_leads_into_another(layers: list[Path], target: Path) -> None:
    write(layers[2], "run/app/pid", "7")
    (layers[1] / "var").mkdir()
    os.symlink("/run", layers[1] / "var" / "run")
    assert copy(layers, "/var/./run/../run/app", target)
    assert (target / "pid").read_text() == "7"


def test_links_inside_are_copied_as_links(layers: list[Path], target: Path) -> None:
    (layers[0] / "data").mkdir()
    os.symlink("/etc/passwd", layers[0] / "data" / "link")
    assert copy(layers, "/data", target)
    assert os.readlink(target / "link") == "/etc/passwd"


def test_a_circle_of_links_is_refused(layers: list[Path], target: Path) -> None:
    os.symlink("b", layers[0] / "a")
    os.symlink("a", layers[1] / "b")
    with pytest.raises(InvalidArgumentError, match="too many symbolic links"):
        copy(layers, "/a", target)


@pytest.mark.parametrize("path", ["/absent", "/file", "/file/below", "/dangling"])
def test_without_a_directory_there_the_volume_stays_empty(
    layers: list[Path], target: Path, path: str
) -> None:
    write(layers[0], "file")
    os.symlink("absent", layers[0] / "dangling")
    assert not copy(layers, path, target)
    assert os.listdir(target) == []


def test_a_used_volume_is_left_alone(layers: list[Path], target: Path) -> None:
    write(layers[0], "data/new")
    write(target, "old", "kept")
    target.chmod(0o711)
    assert not copy(layers, "/data", target)
    assert os.listdir(target) == ["old"]
    assert target.stat().st_mode & 0o777 == 0o711


def test_hard_links_modes_and_times_are_kept(layers: list[Path], target: Path) -> None:
    one = write(layers[0], "data/sub/one", "text")
    os.link(one, layers[0] / "data" / "two")
    one.chmod(0o4751)
    os.utime(one, ns=(5_000_000_001, 6_000_000_002))
    (layers[0] / "data" / "sub").chmod(0o2700)
    (layers[0] / "data").chmod(0o1770)
    os.utime(layers[0] / "data" / "sub", ns=(7, 8))
    os.mkfifo(layers[0] / "data" / "fifo", 0o640)
    assert copy(layers, "/data", target)
    status = (target / "two").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4751, 6_000_000_002)
    assert status.st_ino == (target / "sub" / "one").stat().st_ino
    assert (target / "sub").stat().st_mode & 0o7777 == 0o2700
    assert (target / "sub").stat().st_mtime_ns == 8
    assert target.stat().st_mode & 0o7777 == 0o1770
    assert (target / "fifo").is_fifo()


def test_a_failure_leaves_the_volume_empty(
    layers: list[Path], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(layers[0], "data/a")
    write(layers[0], "data/b")

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("cais.snapshots.inodes.copy_data", full)
    with pytest.raises(OSError, match="no space"):
        copy(layers, "/data", target)
    assert os.listdir(target) == []
    assert os.listdir(target.parent) == ["_data"]


def test_what_a_crash_left_does_not_stand_in_the_way(layers: list[Path], target: Path) -> None:
    write(layers[0], "data/a")
    write(target.parent, ".copy-up/half/done")
    assert copy(layers, "/data", target)
    assert os.listdir(target) == ["a"]
    assert os.listdir(target.parent) == ["_data"]


def test_the_root_of_the_image_can_be_copied(layers: list[Path], target: Path) -> None:
    write(layers[0], "a/b", "x")
    assert copy(layers, "/", target)
    assert (target / "a" / "b").read_text() == "x"


def test_no_layers_no_copy(target: Path) -> None:
    assert not copy([], "/data", target)
