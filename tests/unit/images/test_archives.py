"""Loading and saving: messages, platforms, names, and the same bytes every time."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cais.errors import NotFoundError
from cais.images import archive
from cais.images.bootstrap.busybox import BUSYBOX, build_busybox_image
from cais.images.importer import import_rootfs
from cais.images.records import PlatformNotFoundError
from cais.images.saving import ReferenceNotFoundError
from cais.images.store import ImageNotFoundError, ImageStore
from cais.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, InvalidImageError
from cais.spec.platform import Platform
from cais.testing.image_store import (
    config_of,
    docker_archive,
    hex_digest,
    left_over,
    open_image_store,
)
from cais.testing.raw_tar import Member, tar

LAYERS = [bytes(1024), bytes(1536)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        yield opened


def load(store: ImageStore, content: bytes, **options: Any) -> tuple[archive.LoadedImage, ...]:
    return archive.load(io.BytesIO(content), store, **options)


def saved(store: ImageStore, *refs: str) -> bytes:
    return b"".join(archive.save(store, refs))


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened if m.isfile()}  # type: ignore[union-attr]


class Oci:
    """Builds OCI layouts."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, content: bytes | dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.blobs[hex_digest(content)] = content
        digest = f"sha256:{hex_digest(content)}"
        return {"mediaType": kind, "digest": digest, "size": len(content)} | more

    def image(self, author: str = "", *, runs_on: str = "", **more: Any) -> dict[str, Any]:
        layer = self.add(gzip.compress(LAYERS[0], mtime=0), OCI_LAYER_GZIP)
        document = json.loads(config_of([hex_digest(LAYERS[0])], author=author))
        document["architecture"] = runs_on or document["architecture"]
        config = self.add(document, OCI_CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config}
        return self.add(manifest | {"layers": [layer]}, OCI_MANIFEST, **more)

    def index(self, *manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.add({"schemaVersion": 2, "manifests": list(manifests)}, OCI_INDEX, **more)

    def archive(self, *manifests: dict[str, Any], without: str = "") -> bytes:
        index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        return tar(
            [
                Member("index.json", index),
                Member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                *(
                    Member(f"blobs/sha256/{name}", blob)
                    for name, blob in self.blobs.items()
                    if f"sha256:{name}" != without
                ),
            ]
        )


def platform(architecture: str, **more: str) -> dict[str, Any]:
    return {"platform": {"os": "linux", "architecture": architecture} | more}


HERE = json.loads(config_of([]))["architecture"]
ELSEWHERE = "s390x"


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"io.containerd.image.name": name}}


def test_the_messages_of_a_load(store: ImageStore) -> None:
    messages: list[Any] = []
    loaded = load(store, docker_archive(LAYERS, ["a:1", "b:2"]), progress=messages.append)
    assert loaded[0].lines() == ("Loaded image: a:1", "Loaded image: b:2")
    layers = [message for message in messages if "status" in message]
    assert [(m["status"], m["id"]) for m in layers] == [
        ("Loading layer", hex_digest(layer)[:12]) for layer in LAYERS
    ]
    assert layers[-1]["progressDetail"] == {"current": 1536, "total": 1536}
    assert messages[-2:] == [
        {"stream": "Loaded image: a:1\n"},
        {"stream": "Loaded image: b:2\n"},
    ]


def test_a_quiet_load_says_only_what_it_loaded(store: ImageStore) -> None:
    messages: list[Any] = []
    [image] = load(store, docker_archive(LAYERS, None), progress=messages.append, quiet=True)
    assert messages == [{"stream": f"Loaded image ID: {image.id}\n"}]


def test_a_name_that_moves_is_reported(store: ImageStore) -> None:
    [old] = load(store, docker_archive(LAYERS[:1], ["a:1"]))
    messages: list[Any] = []
    load(store, docker_archive(LAYERS, ["a:1"]), progress=messages.append, quiet=True)
    assert messages[0] == {
        "stream": f"The image a:1 already exists, renaming the old one with ID {old.id} "
        "to empty string\n"
    }
    assert store.resolve(old.id).repo_tags == ()


def test_loading_twice_changes_nothing(store: ImageStore) -> None:
    load(store, docker_archive(LAYERS))
    before = left_over(store)
    load(store, docker_archive(LAYERS))
    assert left_over(store) == before


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
@pytest.mark.parametrize("inside", [True, False], ids=["layers", "archive"])
def test_compressed_layers_and_archives(store: ImageStore, pack: Any, inside: bool) -> None:
    if inside:
        names = [hex_digest(layer) for layer in LAYERS]
        content = docker_archive([pack(layer) for layer in LAYERS], diff_ids=names)
    else:
        content = pack(docker_archive(LAYERS))
    [image] = load(store, content)
    assert [d.removeprefix("sha256:") for d in store.get(image.id).diff_ids] == [
        hex_digest(layer) for layer in LAYERS
    ]


def test_an_index_gives_the_image_of_this_platform(store: ImageStore) -> None:
    oci = Oci()
    there = oci.image("there", **platform(ELSEWHERE))
    here = oci.image("here", **platform(HERE))
    attestation = oci.image("x", **platform("unknown", os="unknown"))
    top = oci.index(there, here, attestation, **named("docker.io/library/multi:1"))
    [image] = load(store, oci.archive(top))
    assert image.names == ("multi:1",)
    assert store.get(image.id).config.author == "here"
    assert store.get(image.id).manifest == here["digest"]


def test_a_load_for_another_platform(store: ImageStore) -> None:
    oci = Oci()
    there = oci.image("there", runs_on=ELSEWHERE, **platform(ELSEWHERE))
    here = oci.image("here", **platform(HERE))
    content = oci.archive(oci.index(here, there, **named("docker.io/library/multi:1")))
    [image] = load(store, content, platform=Platform("linux", ELSEWHERE))
    assert store.get(image.id).config.author == "there"
    assert b"".join(archive.save(store, ["multi:1"], Platform("linux", ELSEWHERE)))
    wrong = r"^image with reference multi:1 was found but does not provide .* \(linux/riscv64\)$"
    with pytest.raises(PlatformNotFoundError, match=wrong):
        archive.save(store, ["multi"], Platform("linux", "riscv64"))


def test_a_load_of_what_the_platform_is_not_in_leaves_nothing(store: ImageStore) -> None:
    wanted = Platform("linux", ELSEWHERE)
    text = rf"^image a:1 doesn't provide the requested platform \(linux/{ELSEWHERE}\)$"
    with pytest.raises(NotFoundError, match=text):
        load(store, docker_archive(LAYERS, ["a:1"]), platform=wanted)
    oci = Oci()
    content = oci.archive(oci.index(oci.image("here", **platform(HERE))))
    with pytest.raises(InvalidImageError, match=f"no image for {wanted}"):
        load(store, content, platform=wanted)
    assert left_over(store) == []


def test_platforms_left_out_of_an_archive_are_fine(store: ImageStore) -> None:
    oci = Oci()
    there, here = oci.image("there", **platform(ELSEWHERE)), oci.image("here", **platform(HERE))
    content = oci.archive(oci.index(there, here), without=there["digest"])
    assert len(load(store, content)) == 1


def test_no_image_for_this_platform_is_an_error(store: ImageStore) -> None:
    oci = Oci()
    content = oci.archive(oci.index(oci.image("there", **platform(ELSEWHERE))))
    with pytest.raises(InvalidImageError, match="no image for linux/"):
        load(store, content)
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({"io.containerd.image.name": "docker.io/library/a:1"}, ("a:1",)),
        ({"org.opencontainers.image.ref.name": "docker.io/library/a:1"}, ("a:1",)),
        ({"org.opencontainers.image.ref.name": "latest"}, ()),
        ({"org.opencontainers.image.ref.name": "NOT:A:NAME"}, ()),
        ({"io.containerd.image.name": "h.io/a", "org.opencontainers.image.ref.name": "x"},
         ("h.io/a:latest",)),
        ({}, ()),
    ],
)  # fmt: skip
def test_names_in_an_index(
    store: ImageStore, annotations: dict[str, str], names: tuple[str, ...]
) -> None:
    oci = Oci()
    [image] = load(store, oci.archive(oci.image(annotations=annotations)))
    assert image.names == names


def test_one_image_with_two_names_in_an_index(store: ImageStore) -> None:
    oci = Oci()
    first = oci.image(**named("a:1"))
    second = oci.image(**named("a:2"))
    [image] = load(store, oci.archive(first, second))
    assert image.names == ("a:1", "a:2")


def test_what_is_saved_loads_as_the_same_images(store: ImageStore, tmp_path: Path) -> None:
    load(store, docker_archive(LAYERS, ["a:1", "a:2"]))
    load(store, docker_archive(LAYERS[:1], ["b:1"]))
    before = [(r.id, r.repo_tags, r.manifest, r.layers) for r in store.list()]
    content = saved(store, "a", "b:1")
    with open_image_store(tmp_path / "second") as second:
        load(second, content)
        assert sorted((r.id, r.repo_tags, r.manifest, r.layers) for r in second.list()) == sorted(
            before
        )
        assert saved(second, "a", "b:1") == content


def test_a_saved_archive_has_both_forms(store: ImageStore) -> None:
    load(store, docker_archive(LAYERS, ["a:1", "h.io/b/c:2"]))
    found = members(saved(store, "a:1", "h.io/b/c:2"))
    [entry] = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == ["a:1", "h.io/b/c:2"]
    assert found[entry["Config"]].startswith(b'{"architecture"')
    assert [found[name] for name in entry["Layers"]] == LAYERS
    index = json.loads(found["index.json"])
    assert [d["annotations"] for d in index["manifests"]] == [
        {"io.containerd.image.name": "docker.io/library/a:1",
         "org.opencontainers.image.ref.name": "1"},
        {"io.containerd.image.name": "h.io/b/c:2", "org.opencontainers.image.ref.name": "2"},
    ]  # fmt: skip
    manifest = json.loads(found["blobs/sha256/" + index["manifests"][0]["digest"][7:]])
    assert [d["size"] for d in manifest["layers"]] == [1024, 1536]
    top = hex_digest(LAYERS[1])
    assert json.loads(found["repositories"]) == {"a": {"1": top}, "h.io/b/c": {"2": top}}
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_names_that_are_saved(store: ImageStore) -> None:
    [image] = load(store, docker_archive(LAYERS, ["a:1", "a:2", "b:1"]))

    def tags(*refs: str) -> list[Any]:
        return [e["RepoTags"] for e in json.loads(members(saved(store, *refs))["manifest.json"])]

    assert tags("a:1") == [["a:1"]]
    assert tags("a") == [["a:1", "a:2"]]  # a repository stands for all its tags
    assert tags(image.id) == [None]
    assert tags(image.id[7:19]) == [None]
    assert tags("a:2", image.id, "a:1") == [["a:1", "a:2"]]


def test_what_cannot_be_saved_says_so_before_the_first_byte(store: ImageStore) -> None:
    load(store, docker_archive(LAYERS, ["a:1"]))
    with pytest.raises(ImageNotFoundError, match=r"^No such image: nope$"):
        archive.save(store, ["a:1", "nope"])
    with pytest.raises(ReferenceNotFoundError, match=r"^reference does not exist$"):
        archive.save(store, ["a:2"])
    with pytest.raises(ImageNotFoundError):
        archive.save(store, [f"sha256:{'a' * 64}"])


def test_an_image_being_saved_keeps_its_blobs(store: ImageStore) -> None:
    load(store, docker_archive(LAYERS, ["a:1"]))
    chunks = archive.save(store, ["a:1"])
    first = next(chunks)
    store.delete("a:1")
    assert len(members(first + b"".join(chunks))) == 8
    store.collect()
    assert left_over(store) == []


def test_import(store: ImageStore) -> None:
    image_id = import_rootfs(
        io.BytesIO(LAYERS[0]),
        store,
        repository="imported",
        message="why",
        changes=['CMD ["run"]', "ENV A=b"],
        platform="linux/arm/v7",
        created_ns=1_500_000_000,
    )
    record = store.resolve("imported:latest")
    assert record.id == image_id
    assert record.config.config is not None
    assert (record.config.config.cmd, record.config.config.env) == (["run"], ["A=b"])
    assert (record.config.architecture, record.config.variant) == ("arm", "v7")
    assert store.history("imported")[0]["Comment"] == "why"
    assert record.created == "1970-01-01T00:00:01.5Z"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_an_import_keeps_the_archive_as_it_came(store: ImageStore, pack: Any) -> None:
    content = pack(LAYERS[0])
    record = store.get(import_rootfs(io.BytesIO(content), store))
    assert record.layers[0].blob == f"sha256:{hex_digest(content)}"
    assert record.diff_ids == (f"sha256:{hex_digest(LAYERS[0])}",)
    assert record.repo_tags == ()


def test_an_import_in_a_format_images_cannot_have_is_unpacked(store: ImageStore) -> None:
    for pack in (lzma.compress, bz2.compress):
        record = store.get(import_rootfs(io.BytesIO(pack(LAYERS[0])), store))
        assert record.layers[0].blob == record.diff_ids[0]


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox-static is not installed")
def test_busybox_is_the_same_every_time() -> None:
    with build_busybox_image() as first, build_busybox_image() as second:
        content = first.read()
        assert second.read() == content
    found = members(content)
    [entry] = json.loads(found["manifest.json"])
    assert entry["RepoTags"] == ["busybox:latest"]
    assert json.loads(found[entry["Config"]])["config"]["Cmd"] == ["sh"]
    with tarfile.open(fileobj=io.BytesIO(found[entry["Layers"][0]])) as opened:
        assert opened.getmember("bin/sh").linkname == "bin/busybox"
        assert opened.getmember("tmp").mode == 0o1777
