"""Archives go both ways between us and skopeo, umoci and podman."""

import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cais.images import archive
from cais.images.store import ImageStore
from cais.testing.image_store import docker_archive, hex_digest, open_image_store
from cais.testing.isolation import isolated
from cais.testing.peers import installed
from cais.testing.raw_tar import Member, tar

FILES = [Member("etc", kind=b"5", mode=0o755), Member("etc/motd", b"hello", mode=0o640, uid=7)]
LAYERS = [tar(FILES), tar([Member("etc/.wh.motd"), Member("etc/issue", b"new")])]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path / "data") as opened:
        archive.load(io.BytesIO(docker_archive(LAYERS, ["test:1"])), opened)
        yield opened


@pytest.fixture
def ours(store: ImageStore, tmp_path: Path) -> Path:
    path = tmp_path / "ours.tar"
    path.write_bytes(b"".join(archive.save(store, ["test:1"])))
    return path


def run(*command: str | Path) -> bytes:
    installed(os.fspath(command[0]))
    return subprocess.run(command, check=True, capture_output=True).stdout


def diff_ids(document: bytes) -> list[str]:
    return [d.removeprefix("sha256:") for d in json.loads(document)["rootfs"]["diff_ids"]]


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_we_save(ours: Path, kind: str) -> None:
    config = run("skopeo", "inspect", "--config", "--raw", f"{kind}:{ours}")
    assert diff_ids(config) == [hex_digest(layer) for layer in LAYERS]


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_what_skopeo_makes_of_it_loads_as_the_same_image(
    store: ImageStore, ours: Path, tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other.tar"
    run("skopeo", "copy", f"docker-archive:{ours}", f"{kind}:{other}:h.io/copied:2")
    with open_image_store(tmp_path / "second") as second, other.open("rb") as source:
        [loaded] = archive.load(source, second)
        assert loaded.names == ("h.io/copied:2",)
        copied, original = second.get(loaded.id), store.resolve("test:1")
        assert copied.diff_ids == original.diff_ids
        assert copied.config == original.config
        assert (copied.id == original.id) or kind == "oci-archive"  # rewritten as an OCI document


def test_umoci_unpacks_what_we_save_and_we_load_what_it_repacks(ours: Path, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    layout.mkdir()
    run("tar", "-x", "-C", layout, "-f", ours)
    run("umoci", "unpack", "--image", f"{layout}:1", bundle)
    assert os.listdir(bundle / "rootfs/etc") == ["issue"]
    (bundle / "rootfs/etc/added").write_text("by umoci")
    (bundle / "rootfs/etc/issue").unlink()
    run("umoci", "repack", "--image", f"{layout}:2", bundle)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [d for d in index["manifests"] if "2" in d["annotations"].values()]
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "manifest.json").unlink()
    packed = run("tar", "-c", "-C", layout, ".")
    with open_image_store(tmp_path / "second") as second:
        [loaded] = archive.load(io.BytesIO(packed), second)
        assert loaded.names == ("test:1",)  # umoci copies annotations
        layer = second.snapshotter.layer(second.get(loaded.id).chain_id or "")
        assert sorted(os.listdir(f"{layer.path}/etc")) == ["added", "issue"]
        assert os.lstat(f"{layer.path}/etc/issue").st_rdev == 0


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_loads_what_we_save_and_we_load_what_it_saves(
    ours: Path, tmp_path: Path, form: str
) -> None:
    def body() -> None:
        podman = [
            "podman", "--root", tmp_path / "root", "--runroot", runroot, "--storage-driver", "vfs",
        ]  # fmt: skip
        run(*podman, "load", "--input", ours)
        config = json.loads(run(*podman, "image", "inspect", "test:1"))[0]
        assert [d[7:] for d in config["RootFS"]["Layers"]] == [
            hex_digest(layer) for layer in LAYERS
        ]
        theirs = tmp_path / "theirs.tar"
        run(*podman, "save", "--format", form, "--output", theirs, "test:1")
        with open_image_store(tmp_path / "second") as second, theirs.open("rb") as source:
            [loaded] = archive.load(source, second)
            assert loaded.names == ("test:1",)
            assert [d[7:] for d in second.get(loaded.id).diff_ids] == [
                hex_digest(layer) for layer in LAYERS
            ]

    with tempfile.TemporaryDirectory(prefix="cais-") as runroot:  # podman takes 50 characters
        isolated(body, leftovers=False)


@pytest.fixture
def several(store: ImageStore, tmp_path: Path) -> Path:
    """Two images with a layer in common, the second with two names, in one archive of ours."""
    archive.load(io.BytesIO(docker_archive([LAYERS[0]], ["base:1", "base:alias"])), store)
    path = tmp_path / "several.tar"
    path.write_bytes(b"".join(archive.save(store, ["test:1", "base:1", "base:alias"])))
    return path


def test_skopeo_finds_each_of_several_images(several: Path) -> None:
    for name, layers in (("test:1", LAYERS), ("base:1", LAYERS[:1]), ("base:alias", LAYERS[:1])):
        config = run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{several}:{name}")
        assert diff_ids(config) == [hex_digest(layer) for layer in layers]
        config = run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{several}:@0")
        assert diff_ids(config)


def test_several_images_go_to_podman_and_back(several: Path, tmp_path: Path) -> None:
    def body() -> None:
        podman = [
            "podman", "--root", tmp_path / "root", "--runroot", runroot, "--storage-driver", "vfs",
        ]  # fmt: skip
        run(*podman, "load", "--input", several)
        theirs = tmp_path / "theirs.tar"
        run(*podman, "save", "-m", "--output", theirs, "test:1", "base:1")
        with open_image_store(tmp_path / "second") as second, theirs.open("rb") as source:
            loaded = archive.load(source, second)
            found = {name: second.get(image.id) for image in loaded for name in image.names}
            found = {name.removeprefix("localhost/"): image for name, image in found.items()}
            for name, layers in (("test:1", LAYERS), ("base:1", LAYERS[:1])):
                wanted = [hex_digest(layer) for layer in layers]
                assert [digest[7:] for digest in found[name].diff_ids] == wanted

    with tempfile.TemporaryDirectory(prefix="cais-") as runroot:
        isolated(body, leftovers=False)


def test_an_archive_saved_again_has_the_same_bytes(several: Path, tmp_path: Path) -> None:
    with open_image_store(tmp_path / "second") as second:
        with several.open("rb") as source:
            archive.load(source, second)
        again = b"".join(archive.save(second, ["test:1", "base:1", "base:alias"]))
    assert again == several.read_bytes()
