import json
import os
import subprocess
from pathlib import Path

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.volumes.errors import (
    InvalidVolumeNameError,
    VolumeDriverNotFoundError,
    VolumeInUseError,
    VolumeNotFoundError,
)
from cais.volumes.store import ANONYMOUS_LABEL, VolumeStore


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(str(tmp_path))


def disk_use(path: str) -> int:
    said = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(said.stdout.split()[0])


def test_a_volume_is_there_after_a_restart(store: VolumeStore, tmp_path: Path) -> None:
    volume, is_new = store.create("data", labels={"a": "1"})
    assert is_new
    assert volume.mountpoint == str(tmp_path / "volumes" / "data" / "_data")
    assert os.stat(volume.mountpoint).st_mode & 0o777 == 0o755
    assert os.stat(tmp_path / "volumes").st_mode & 0o777 == 0o701
    again = VolumeStore(str(tmp_path))
    assert again.get("data") == volume
    assert again.create("data", labels={"b": "2"}) == (volume, False)


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        volume, _ = VolumeStore(str(tmp_path)).create("data")
    finally:
        os.umask(before)
    assert os.stat(volume.mountpoint).st_mode & 0o777 == 0o755


def test_documents_are_dockers(store: VolumeStore) -> None:
    named, _ = store.create("data")
    document = named.to_docker()
    assert document.pop("CreatedAt").endswith("Z")
    assert document == {
        "Driver": "local",
        "Labels": None,
        "Mountpoint": named.mountpoint,
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    nameless, _ = store.create()
    assert len(nameless.name) == 64
    assert nameless.to_docker()["Labels"] == {ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize(
    "name", ["x y", "-a", ".hidden", "a/b", "../x", "a\nb", "ä1", "a\0", "x" * 256]
)
def test_names_outside_the_grammar(store: VolumeStore, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidVolumeNameError):
        store.create(name)
    assert os.listdir(tmp_path / "volumes") == []


def test_the_grammar_in_dockers_words(store: VolumeStore) -> None:
    with pytest.raises(InvalidVolumeNameError) as refused:
        store.create("x y")
    assert str(refused.value) == (
        'create x y: "x y" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
        "use absolute path"
    )
    with pytest.raises(InvalidVolumeNameError, match="volume name is too short"):
        store.create("x")


def test_drivers_and_options(store: VolumeStore) -> None:
    with pytest.raises(VolumeDriverNotFoundError, match='plugin "nfs" not found'):
        store.create("data", driver="nfs")
    with pytest.raises(UnsupportedError, match="device, type"):
        store.create("data", options={"type": "tmpfs", "device": "tmpfs"})
    assert store.list() == []


def test_removal(store: VolumeStore, tmp_path: Path) -> None:
    volume, _ = store.create("data")
    deep = Path(volume.mountpoint) / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    with pytest.raises(VolumeInUseError) as refused:
        store.remove("data", users={"c2", "c1"})
    assert str(refused.value) == "remove data: volume is in use - [c1, c2]"
    store.remove("data")
    assert os.listdir(tmp_path / "volumes") == []
    with pytest.raises(VolumeNotFoundError, match="get data: no such volume"):
        store.remove("data")
    store.remove("data", force=True)
    with pytest.raises(VolumeNotFoundError):
        store.get("data")


def test_a_symlink_in_a_volume_is_removed_not_followed(store: VolumeStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    volume, _ = store.create("data")
    os.symlink(outside, Path(volume.mountpoint) / "link")
    assert store.usage("data") == disk_use(volume.mountpoint)
    store.remove("data")
    assert (outside / "kept").exists()


def test_what_a_crash_leaves_is_cleaned(store: VolumeStore, tmp_path: Path) -> None:
    store.create("data")
    for name in (".new-1", ".gone-2"):
        (tmp_path / "volumes" / name / "_data").mkdir(parents=True)
    assert [volume.name for volume in VolumeStore(str(tmp_path)).list()] == ["data"]
    assert os.listdir(tmp_path / "volumes") == ["data"]


def test_a_failed_creation_leaves_nothing(
    store: VolumeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("cais.volumes.local.write_durably", full)
    with pytest.raises(OSError, match="no space"):
        store.create("data")
    assert os.listdir(tmp_path / "volumes") == []
    assert store.list() == []


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"version": 99}), "\xff"])
def test_a_damaged_record_hides_no_data(store: VolumeStore, tmp_path: Path, text: str) -> None:
    volume, _ = store.create("data", labels={"a": "1"})
    (Path(volume.mountpoint) / "kept").touch()
    (tmp_path / "volumes" / "data" / "volume.json").write_text(text, encoding="latin-1")
    again = VolumeStore(str(tmp_path))
    assert again.get("data").labels == {}
    assert os.listdir(again.get("data").mountpoint) == ["kept"]


def names(store: VolumeStore, in_use: set[str] | None = None, **filters: list[str]) -> list[str]:
    return [volume.name for volume in store.list(filters, in_use=in_use or set())]


def test_filters(store: VolumeStore) -> None:
    store.create("web-data", labels={"tier": "web", "x": ""})
    store.create("db-data", labels={"tier": "db"})
    assert names(store) == ["db-data", "web-data"]
    assert names(store, name=["web"]) == ["web-data"]
    assert names(store, name=["web", "db"]) == ["db-data", "web-data"]
    assert names(store, label=["tier"]) == ["db-data", "web-data"]
    assert names(store, label=["tier=db"]) == ["db-data"]
    assert names(store, label=["tier", "x"]) == ["web-data"]
    assert names(store, driver=["local"]) == ["db-data", "web-data"]
    assert names(store, driver=["nfs"]) == []
    assert names(store, {"db-data"}, dangling=["true"]) == ["web-data"]
    assert names(store, {"db-data"}, dangling=["0"]) == ["db-data"]
    with pytest.raises(InvalidArgumentError, match="invalid filter 'colour'"):
        names(store, colour=["red"])
    for values in (["maybe"], ["true", "false"]):
        with pytest.raises(InvalidArgumentError, match="invalid filter 'dangling="):
            names(store, dangling=values)


def test_prune_takes_unused_anonymous_volumes(store: VolumeStore) -> None:
    used, _ = store.create()
    unused, _ = store.create()
    named, _ = store.create("named", labels={"keep": "1"})
    (Path(unused.mountpoint) / "file").write_bytes(b"12345")
    freed = disk_use(unused.mountpoint)
    assert store.prune(in_use={used.name}) == ([unused.name], freed)
    assert store.prune({"all": ["true"], "label!": ["keep"]}, in_use={used.name}) == ([], 0)
    freed = disk_use(named.mountpoint)
    assert store.prune({"all": ["1"]}, in_use={used.name}) == (["named"], freed)
    with pytest.raises(InvalidArgumentError, match="invalid filter 'name'"):
        store.prune({"name": ["x"]})
