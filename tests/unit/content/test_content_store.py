"""The content store: what is in it is complete, verified, and needed by somebody."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from cais.content.store import BlobNotFoundError, ContentStore
from cais.errors import ExhaustedError, InternalError, InvalidArgumentError
from cais.spec.digest import Digest, DigestMismatchError, InvalidDigestError, digest_of

CONTENT = b"content"
DIGEST = digest_of(CONTENT)
OTHER = digest_of(b"other")


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def ingests(store: ContentStore) -> list[str]:
    return os.listdir(store._ingest)


def test_a_blob_is_found_by_the_digest_of_its_bytes(store: ContentStore, tmp_path: Path) -> None:
    with store.leases.open() as lease, store.open_ingest() as ingest:
        for byte in CONTENT:
            ingest.write(bytes([byte]))
        assert ingest.commit(lease, DIGEST).size_bytes == len(CONTENT)
    assert store.read(DIGEST, 100) == CONTENT
    assert store.stat(DIGEST).size_bytes == len(CONTENT)
    with store.open_blob(DIGEST) as blob:
        assert blob.read() == CONTENT
    assert [blob.digest for blob in store.walk()] == [DIGEST]
    path = tmp_path / "content/blobs/sha256" / DIGEST.removeprefix("sha256:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o700
    assert ingests(store) == []


def test_a_wrong_digest_leaves_nothing(store: ContentStore) -> None:
    with store.leases.open() as lease, store.open_ingest() as ingest:
        ingest.write(CONTENT)
        with pytest.raises(DigestMismatchError) as caught:
            ingest.commit(lease, OTHER)
        assert (caught.value.expected, caught.value.actual) == (OTHER, DIGEST)
    assert list(store.walk()) == []
    assert ingests(store) == []


def test_leaving_without_a_commit_leaves_nothing(store: ContentStore) -> None:
    with store.open_ingest() as ingest:
        ingest.write(CONTENT)
        assert len(ingests(store)) == 1
    assert ingests(store) == []


def test_an_ingest_can_wait_closed(store: ContentStore) -> None:
    with store.leases.open() as lease, store.open_ingest() as ingest:
        ingest.write(CONTENT)
        ingest.finish()
        with ingest.open_written() as written:
            assert written.read() == CONTENT
        ingest.commit(lease)
    assert store.read(DIGEST, 100) == CONTENT


@pytest.mark.parametrize("call", ["open_blob", "stat"])
def test_an_absent_blob_is_named(store: ContentStore, call: str) -> None:
    with pytest.raises(BlobNotFoundError, match=DIGEST):
        getattr(store, call)(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "../x", "", "sha256:AB"])
def test_what_is_no_digest_is_no_path(store: ContentStore, digest: str) -> None:
    with pytest.raises(InvalidDigestError):
        store.open_blob(Digest(digest))


def test_damage_is_noticed_when_read(store: ContentStore, tmp_path: Path) -> None:
    with store.leases.open() as lease:
        store.write(CONTENT, lease)
    path = tmp_path / "content/blobs/sha256" / DIGEST.removeprefix("sha256:")
    path.chmod(0o600)
    path.write_bytes(b"contenT")
    with pytest.raises(DigestMismatchError):
        store.read(DIGEST, 100)
    with store.leases.open() as lease:
        store.write(CONTENT, lease)  # mended by whoever brings it again
    assert store.read(DIGEST, 100) == CONTENT


def test_reading_has_a_limit(store: ContentStore) -> None:
    with store.leases.open() as lease:
        store.write(CONTENT, lease)
    assert store.read(DIGEST, len(CONTENT)) == CONTENT
    with pytest.raises(InvalidArgumentError, match="larger than 6 bytes"):
        store.read(DIGEST, len(CONTENT) - 1)


def test_collect_spares_what_is_live_or_leased(store: ContentStore) -> None:
    with store.leases.open() as first:
        store.write(b"live", first)
        store.write(b"gone", first)
    with store.leases.open() as second:
        store.write(b"leased", second)
        with store.leases.held():
            assert store.collect({digest_of(b"live")}) == len(b"gone")
        assert {b.digest for b in store.walk()} == {digest_of(b"live"), digest_of(b"leased")}
    with store.leases.held():
        store.collect(set())
    assert list(store.walk()) == []


def test_nothing_is_leased_while_something_is_collected(store: ContentStore) -> None:
    added = threading.Event()

    def add() -> None:
        with store.leases.open() as lease:
            lease.add("x")
            added.set()

    with store.leases.held():
        thread = threading.Thread(target=add)
        thread.start()
        assert not added.wait(0.05)
    thread.join()
    assert added.is_set()


def test_a_start_deletes_unfinished_ingests(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "content/ingest/left").write_bytes(b"half")
    with store.leases.open() as lease:
        store.write(CONTENT, lease)
    again = ContentStore(tmp_path / "content")
    assert ingests(again) == []
    assert again.read(DIGEST, 100) == CONTENT


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, ExhaustedError), (errno.EIO, InternalError)]
)
def test_a_failed_sync_loses_the_blob(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    """After a failed fsync nobody knows what is on the disk: it is not tried again."""

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with store.leases.open() as lease, store.open_ingest() as ingest:
        ingest.write(CONTENT)
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(kind, match=f"(?i){os.strerror(code)}"):
            ingest.commit(lease)
    assert list(store.walk()) == []
    assert ingests(store) == []


def test_data_is_synced_before_the_name_and_the_name_after(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_sync(fd: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    def record_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    with store.leases.open() as lease:
        store.write(CONTENT, lease)
    assert steps == ["sync file", "rename", "sync directory"]
