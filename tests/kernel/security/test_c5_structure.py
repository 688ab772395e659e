"""SECURITY.md C5: image archives with absurd structure are refused by name of the limit."""

import io
import json
from pathlib import Path

import pytest

from cais.errors import ExhaustedError, InvalidArgumentError
from cais.images import archive, members
from cais.spec.image import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, InvalidImageError
from cais.testing.image_store import (
    config_of,
    docker_archive,
    hex_digest,
    left_over,
    open_image_store,
)
from cais.testing.raw_tar import Member, tar

EMPTY_LAYER = tar([])


def load(data_root: Path, content: bytes) -> tuple[archive.LoadedImage, ...]:
    with open_image_store(data_root) as store:
        return archive.load(io.BytesIO(content), store)


def refuse(data_root: Path, content: bytes, kind: type[Exception], why: str) -> None:
    with open_image_store(data_root) as store:
        with pytest.raises(kind, match=why):
            archive.load(io.BytesIO(content), store)
        assert left_over(store) == []


def test_ten_thousand_layers(tmp_path: Path) -> None:
    digest = hex_digest(EMPTY_LAYER)
    content = docker_archive(
        [EMPTY_LAYER],
        diff_ids=[digest] * 10_000,
        entry={"Layers": [f"{digest}/layer.tar"] * 10_000},
    )
    refuse(tmp_path, content, ExhaustedError, "max depth exceeded: 10000 layers, the limit is 500")


def test_one_blob_a_hundred_times_is_kept_once(tmp_path: Path) -> None:
    digest = hex_digest(EMPTY_LAYER)
    content = docker_archive(
        [EMPTY_LAYER], diff_ids=[digest] * 100, entry={"Layers": [f"{digest}/layer.tar"] * 100}
    )
    with open_image_store(tmp_path) as store:
        archive.load(io.BytesIO(content), store)
        assert len(list(store.content.walk())) == 3  # configuration, manifest, one layer


def test_a_large_configuration(tmp_path: Path) -> None:
    config = config_of([hex_digest(EMPTY_LAYER)], author="x" * 5_000_000)
    content = docker_archive([EMPTY_LAYER], config=config)
    refuse(tmp_path, content, InvalidImageError, "the limit is 4194304")


@pytest.mark.parametrize(
    "document",
    [
        b'{"rootfs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":' * 50_000,
        b'{"rootfs":{"type":"layers"},"rootfs":{"type":"layers"}}',
        b'{"rootfs":{"type":"layers"},"x":NaN}',
        b'{"rootfs":{"type":"layers"},"x":' + b"1" * 5000 + b"}",
        b'{"rootfs":{"type":"other"}}',
        b'{"rootfs":{"type":"layers","diff_ids":"x"}}',
        b'{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}',
        b'{"rootfs":{"type":"layers","diff_ids":["md5:d41d8cd98f00b204e9800998ecf8427e"]}}',
        b"[]",
        b"null",
        b"",
        b"\xff",
    ],
)
def test_configurations_with_two_meanings_or_none(tmp_path: Path, document: bytes) -> None:
    refuse(tmp_path, docker_archive([], config=document), InvalidArgumentError, ".")


def test_a_large_manifest(tmp_path: Path) -> None:
    manifest = json.dumps([{"Config": "c", "Layers": ["x" * 1_100_000]}]).encode()
    content = tar([Member("manifest.json", manifest)])
    refuse(tmp_path, content, InvalidImageError, "the limit is 1048576")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MEMBER_LIMIT", 50)
    content = docker_archive([EMPTY_LAYER], extra=[Member(f"{n}") for n in range(60)])
    refuse(tmp_path, content, ExhaustedError, "more than 50 members")


def index_of(*descriptors: tuple[str, bytes]) -> bytes:
    manifests = [
        {"mediaType": kind, "digest": f"sha256:{hex_digest(content)}", "size": len(content)}
        for kind, content in descriptors
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def layout(index: bytes, *blobs: bytes) -> bytes:
    return tar(
        [
            Member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            Member("index.json", index),
            *(Member(f"blobs/sha256/{hex_digest(blob)}", blob) for blob in blobs),
        ]
    )


def image_blobs() -> tuple[bytes, bytes]:
    config = config_of([])
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": f"sha256:{hex_digest(config)}",
            "size": len(config),
        },
        "layers": [],
    }
    return json.dumps(manifest).encode(), config


def test_an_index_in_an_index_is_taken_and_a_third_one_is_not(tmp_path: Path) -> None:
    manifest, config = image_blobs()
    inner = index_of((OCI_MANIFEST, manifest))
    good = layout(index_of((OCI_INDEX, inner)), inner, manifest, config)
    assert len(load(tmp_path / "good", good)) == 1
    middle = index_of((OCI_INDEX, inner))
    deep = layout(index_of((OCI_INDEX, middle)), middle, inner, manifest, config)
    refuse(tmp_path / "deep", deep, InvalidImageError, "nested more than 2")


def test_an_index_that_names_itself(tmp_path: Path) -> None:
    """A digest cannot be its own, but a member can lie about its name."""
    name = "a" * 64
    cycle = {"mediaType": OCI_INDEX, "digest": f"sha256:{name}", "size": 1}
    index = json.dumps({"schemaVersion": 2, "manifests": [cycle]}).encode()
    content = tar([Member("index.json", index), Member(f"blobs/sha256/{name}", index)])
    with open_image_store(tmp_path) as store:
        with pytest.raises(Exception, match=r"digest is sha256:|nested more than") as caught:
            archive.load(io.BytesIO(content), store)
        assert not isinstance(caught.value, RecursionError)
        assert left_over(store) == []
