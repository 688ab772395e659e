"""An engine's images through a registry beside it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cais.content.store import ContentStore
from cais.errors import DataLossError
from cais.images.catalog import Catalog
from cais.images.lending import LentImages
from cais.images.records import NewImage, StoredLayer
from cais.registry.access import Registries
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.discovery import tags
from cais.registry.server.serving import RegistryOptions, RunningRegistry
from cais.registry.settings import RegistrySettings
from cais.spec.digest import ChainId, DiffId, Digest, ImageId, digest_of
from cais.spec.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, decode_config
from cais.spec.reference import Reference, parse_reference

INDEX = digest_of(b"an index that led to the image")


class Engine:
    """As much of an engine's data root as there is to lend."""

    def __init__(self, data_root: Path) -> None:
        self.content = ContentStore(data_root / "content")
        self.catalog = Catalog.open(data_root / "images.db")

    def add(self, layer: bytes, *names: str) -> Digest:
        """Add an image; return its manifest's digest."""
        diff_id = DiffId(digest_of(layer))
        config = config_of(layer)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "config": _descriptor(OCI_CONFIG, config),
                "layers": [_descriptor(OCI_LAYER, layer)],
            }
        ).encode()
        with self.content.leases.open() as lease:
            for part in (layer, config, manifest):
                self.content.write(part, lease)
        stored = StoredLayer(diff_id, ChainId(diff_id), diff_id, len(layer), OCI_LAYER, len(layer))
        image = NewImage(
            ImageId(digest_of(config)), decode_config(config), digest_of(manifest), (stored,)
        )
        self.catalog.register([(image, [parse_reference(name) for name in names])])
        return image.manifest


def config_of(layer: bytes) -> bytes:
    root = {"type": "layers", "diff_ids": [digest_of(layer)]}
    return json.dumps({"os": "linux", "rootfs": root}).encode()


LENT_CONFIG = config_of(b"layer")


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
def lent(engine: Engine, tmp_path: Path) -> Iterator[LentImages]:
    assert engine
    made = LentImages(tmp_path)
    yield made
    made.close()


def test_names(engine: Engine, lent: LentImages) -> None:
    hub = engine.add(b"hub", "busybox:1", "busybox:2", f"busybox@{INDEX}")
    other = engine.add(b"other", "quay.io/library/busybox:1", "localhost:5000/a/b:v1")
    assert lent.repositories() == ["a/b", "library/busybox"]
    assert lent.tags("library/busybox") == ["1", "2"]
    assert lent.tags("nobody") == []
    for repository, reference, expected in (
        ("library/busybox", "1", hub), ("library/busybox", "2", hub), ("a/b", "v1", other),
        ("library/busybox", hub, hub), ("library/busybox", other, other), ("a/b", other, other),
    ):  # fmt: skip
        found = lent.find_manifest(repository, reference)
        assert found is not None
        assert (found.digest, found.media_type) == (expected, OCI_MANIFEST)
        assert digest_of(found.content) == expected
    for repository, reference in (
        ("a/b", "1"), ("a/b", hub), ("library/busybox", "v1"), ("library/busybox", INDEX),
        ("nobody", "1"), ("busybox", "1"),
    ):  # fmt: skip
        assert lent.find_manifest(repository, reference) is None


def test_a_digest_opens_nothing_in_another_repository(engine: Engine, lent: LentImages) -> None:
    engine.add(b"one", "a:1")
    engine.add(b"two", "b:1")
    opened = lent.open_blob("library/a", digest_of(b"one"))
    assert opened is not None
    with opened.file:
        assert (opened.file.read(), opened.size_bytes) == (b"one", 3)
    assert lent.open_blob("library/a", digest_of(b"two")) is None
    assert lent.open_blob("library/c", digest_of(b"one")) is None


def test_what_the_engine_does_is_seen(engine: Engine, lent: LentImages, tmp_path: Path) -> None:
    assert lent.repositories() == []
    manifest = engine.add(b"one", "a:1")
    assert lent.find_manifest("library/a", "1") is not None
    path = tmp_path / "content/blobs/sha256" / manifest.removeprefix("sha256:")
    path.unlink()
    assert lent.find_manifest("library/a", "1") is None


def test_there_must_be_an_engine(tmp_path: Path) -> None:
    with pytest.raises(DataLossError, match=r"images\.db"):
        LentImages(tmp_path)


def test_they_are_pulled_from_a_registry(engine: Engine, tmp_path: Path) -> None:
    """Beside what was pushed, whose tag hides theirs; nothing is stored a second time."""
    manifest = engine.add(b"layer", "quay.io/team/app:v1", "quay.io/team/app:v2")
    options = RegistryOptions(
        tmp_path / "registry", neighbour=tmp_path / "content", lender=LentImages(tmp_path)
    )
    with RunningRegistry(options) as registry:
        registries = Registries(RegistrySettings())
        reference = Reference(registry.address, "team/app")
        (source,) = registries.repositories(reference, ANONYMOUS, Cancel(), can_push=True)
        fetched = source.get_manifest("v1")
        assert (fetched.digest, fetched.media_type) == (manifest, OCI_MANIFEST)
        assert source.read_blob(digest_of(b"layer"), 100) == b"layer"
        assert tags(source) == ["v1", "v2"]
        place = source.begin_upload()
        source.upload_blob(digest_of(b"layer"), 5, lambda: [b"layer"], place)
        inodes = {
            (root / "blobs/sha256" / digest_of(b"layer").removeprefix("sha256:")).stat().st_ino
            for root in (tmp_path / "content", tmp_path / "registry/content")
        }
        assert len(inodes) == 1
        source.upload_blob(digest_of(b"{}"), 2, lambda: [b"{}"], source.begin_upload())
        own = {"schemaVersion": 2, "config": _descriptor(OCI_CONFIG, b"{}"), "layers": []}
        pushed = source.put_manifest("v1", json.dumps(own).encode(), OCI_MANIFEST)
        assert source.get_manifest("v1").digest == pushed
        assert source.get_manifest("v2").digest == manifest
        # What is lent need not be sent: it is there, and mounted from there.
        (other,) = registries.repositories(
            Reference(registry.address, "team/other"), ANONYMOUS, Cancel(), can_push=True
        )
        assert other.mount_blob(digest_of(b"layer"), "team/app") is None
        assert source.put_manifest("v3", fetched.content, OCI_MANIFEST) == manifest
        image_id = ImageId(digest_of(LENT_CONFIG))
        for name in engine.catalog.names(image_id):
            engine.catalog.remove_name(name, image_id)
        assert engine.catalog.remove(image_id)
        assert source.get_manifest("v3").digest == manifest
        assert source.read_blob(digest_of(LENT_CONFIG), 1000) == LENT_CONFIG
        registries.close()
