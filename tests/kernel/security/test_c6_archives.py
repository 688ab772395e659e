"""SECURITY.md C6: an archive that lies about its members leaves no image, name, layer or blob."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cais.errors import InvalidArgumentError
from cais.images import archive
from cais.images.importer import import_rootfs
from cais.spec.digest import DigestMismatchError
from cais.testing.image_store import (
    config_of,
    docker_archive,
    hex_digest,
    left_over,
    open_image_store,
)
from cais.testing.raw_tar import Member, tar

LAYER = tar([Member("file", b"content")])
OTHER = tar([Member("file", b"other")])
DIGEST = hex_digest(LAYER)
CONFIG = config_of([DIGEST])


def with_entry(*extra: Member, **entry: Any) -> bytes:
    return docker_archive([LAYER], entry=entry, extra=extra)


def two_entries(*names: list[str]) -> bytes:
    """Two different images of one archive."""
    configs = [config_of([DIGEST], author=str(n)) for n in range(2)]
    manifest = [
        {"Config": f"{n}.json", "RepoTags": names[n], "Layers": ["layer.tar"]} for n in range(2)
    ]
    return tar(
        [
            Member("layer.tar", LAYER),
            *(Member(f"{n}.json", config) for n, config in enumerate(configs)),
            Member("manifest.json", json.dumps(manifest).encode()),
        ]
    )


ARCHIVES = {
    "layer-of-the-host": with_entry(Layers=["../../../../etc/shadow"]),
    "layer-absolute": with_entry(Layers=["/etc/shadow"]),
    "config-of-the-host": with_entry(Config="../../../../etc/passwd"),
    "layer-symlink-out": with_entry(
        Member("l", kind=b"2", link="../../../../../../etc/shadow"), Layers=["l"]),
    "layer-hardlink-out": with_entry(Member("l", kind=b"1", link="/etc/shadow"), Layers=["l"]),
    "layer-symlink-loop": with_entry(
        Member("l", kind=b"2", link="m"), Member("m", kind=b"2", link="l"), Layers=["l"]),
    "layer-fifo": with_entry(Member("l", kind=b"6"), Layers=["l"]),
    "layer-device": with_entry(Member("l", kind=b"3", device=(1, 5)), Layers=["l"]),
    "layer-directory": with_entry(Member("l", kind=b"5"), Layers=["l"]),
    "layer-missing": with_entry(Layers=["missing"]),
    "layer-not-its-diff-id": docker_archive([LAYER], diff_ids=[hex_digest(OTHER)]),
    "layer-not-a-tar": docker_archive([b"x" * 1024]),
    "layer-xz": docker_archive([b"\xfd7zXZ\x00" + bytes(100)]),
    "layers-too-few": with_entry(Layers=[]),
    "layers-too-many": with_entry(Layers=[f"{DIGEST}/layer.tar"] * 2),
    "config-not-its-name": tar([
        Member(f"{'a' * 64}.json", CONFIG), Member("layer.tar", LAYER),
        Member("manifest.json", json.dumps(
            [{"Config": f"{'a' * 64}.json", "Layers": ["layer.tar"]}]).encode())]),
    "config-fifo": tar([
        Member("c.json", kind=b"6"),
        Member("manifest.json", json.dumps([{"Config": "c.json", "Layers": []}]).encode())]),
    "manifest-fifo": tar([Member("manifest.json", kind=b"6")]),
    "manifest-symlink-out": tar([Member("manifest.json", kind=b"2", link="/etc/hosts")]),
    "manifest-twice": docker_archive([LAYER], extra=[Member("manifest.json", b"[]")]),
    "manifest-twice-by-other-spelling": docker_archive(
        [LAYER], extra=[Member("./x/../manifest.json", b"[]")]),
    "manifest-not-a-list": tar([Member("manifest.json", b'{"Config": "x"}')]),
    "tag-malformed": docker_archive([LAYER], names=["UPPER:latest"]),
    "tag-without-tag": docker_archive([LAYER], names=["name"]),
    "tag-with-digest": docker_archive([LAYER], names=[f"name@sha256:{'a' * 64}"]),
    "two-images-one-tag": two_entries(["same:1"], ["same:1"]),
    "second-image-broken": two_entries(["a:1"], ["BAD"]),
    "v1-only": tar([Member("repositories", b"{}")]),
    "empty": tar([]),
    "nothing": b"",
    "garbage": b"garbage" * 1000,
    "gzip-cut": gzip.compress(docker_archive([LAYER]))[:-20],
    "tar-cut": docker_archive([LAYER])[:2000],
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_refused_with_nothing_left(tmp_path: Path, name: str) -> None:
    with open_image_store(tmp_path) as store:
        with pytest.raises((InvalidArgumentError, DigestMismatchError)) as caught:
            archive.load(io.BytesIO(ARCHIVES[name]), store)
        assert left_over(store) == []
        assert "root:" not in str(caught.value)


@pytest.mark.parametrize("name", ["layer-not-its-diff-id", "config-not-its-name"])
def test_content_is_compared_with_its_digest(tmp_path: Path, name: str) -> None:
    with open_image_store(tmp_path) as store, pytest.raises(DigestMismatchError):
        archive.load(io.BytesIO(ARCHIVES[name]), store)


def test_a_failure_leaves_what_was_there_alone(tmp_path: Path) -> None:
    with open_image_store(tmp_path) as store:
        archive.load(io.BytesIO(docker_archive([LAYER])), store)
        before = left_over(store), store.resolve("test")
        broken = docker_archive([LAYER, OTHER], diff_ids=[DIGEST, "f" * 64])
        with pytest.raises(DigestMismatchError):
            archive.load(io.BytesIO(broken), store)
        assert (left_over(store), store.resolve("test")) == before


def test_only_the_tags_asked_for_are_given(tmp_path: Path) -> None:
    """``repositories`` is read by Dockers of old; poisoning it names nothing here."""
    poison = json.dumps({"victim": {"latest": "x"}}).encode()
    content = docker_archive([LAYER], names=["mine:1"], extra=[Member("repositories", poison)])
    with open_image_store(tmp_path) as store:
        archive.load(io.BytesIO(content), store)
        assert [record.repo_tags for record in store.list()] == [("mine:1",)]


def test_a_progress_that_fails_ends_the_loading(tmp_path: Path) -> None:
    def gone(_: object) -> None:
        raise BrokenPipeError

    with open_image_store(tmp_path) as store:
        with pytest.raises(BrokenPipeError):
            archive.load(io.BytesIO(docker_archive([LAYER])), store, progress=gone)
        assert left_over(store) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise ConnectionResetError
            return super().read(min(size or 1, 512))

    with open_image_store(tmp_path) as store:
        for attempt in (archive.load, import_rootfs):
            with pytest.raises(ConnectionResetError):
                attempt(Broken(docker_archive([LAYER])), store)
            assert left_over(store) == []


def test_links_between_members_work(tmp_path: Path) -> None:
    """Docker before 25 writes a layer that two images share once, and a link to it."""
    content = with_entry(
        Member("twin/layer.tar", kind=b"2", link=f"../{DIGEST}/layer.tar"),
        Member("hard.tar", kind=b"1", link=f"{DIGEST}/layer.tar"),
        Layers=["twin/layer.tar"],
    )
    with open_image_store(tmp_path) as store:
        assert archive.load(io.BytesIO(content), store)[0].names == ("test:latest",)


@pytest.mark.parametrize("content", [tar([Member("../x", b"x")]), b"garbage" * 100])
def test_an_import_that_is_refused_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    with open_image_store(tmp_path) as store:
        with pytest.raises(InvalidArgumentError):
            import_rootfs(io.BytesIO(content), store, repository="x")
        assert left_over(store) == []
