"""What the registry keeps, what it deletes, and what a crash leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cais.content.linked import LinkedStore
from cais.content.store import ContentStore
from cais.registry.server.catalog import Catalog
from cais.registry.server.storage import Storage
from cais.spec.digest import digest_of
from cais.spec.image import OCI_MANIFEST

BLOBS = "content/blobs/sha256"


def blobs(root: Path) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(root / BLOBS)}


def test_one_copy_for_every_repository(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve()
    for repository in ("a", "b/c", "d"):
        client.push_blob(repository, b"the same")
    client.ask("POST", f"/v2/e/blobs/uploads/?mount={digest_of(b'the same')}&from=a")
    assert blobs(tmp_path / "root") == {digest_of(b"the same")}
    assert client.ask("GET", f"/v2/e/blobs/{digest_of(b'the same')}").body == b"the same"


def test_what_is_pushed_is_there_after_a_restart(serve: Callable[..., Any]) -> None:
    first = serve()
    content = first.push_image("a", "v1")
    first.begin("a")
    first.registry.close()
    client = serve()
    assert client.ask("GET", "/v2/a/manifests/v1").body == content
    assert client.ask("GET", f"/v2/a/blobs/{digest_of(b'layer')}").body == b"layer"


def test_uploads_leave_nothing(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve()
    done, wrong, cancelled, left = (client.begin("a") for _ in range(4))
    for location in (done, wrong, cancelled, left):
        client.ask("PATCH", location, b"content")
    client.ask("PUT", f"{done}?digest={digest_of(b'content')}")
    client.ask("PUT", f"{wrong}?digest={digest_of(b'other')}")
    client.ask("DELETE", cancelled)
    assert len(os.listdir(tmp_path / "root/content/ingest")) == 1
    client.registry.close()
    assert os.listdir(tmp_path / "root/content/ingest") == []
    assert blobs(tmp_path / "root") == {digest_of(b"content")}


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    """A storage that keeps what no manifest needs for no time at all."""
    content = ContentStore(tmp_path / "content")
    made = Storage(content, Catalog.open(tmp_path / "registry.db"), grace_s=0)
    yield made
    made.close()


def push(storage: Storage, repository: str, content: bytes) -> Any:
    with storage.content.open_ingest() as ingest:
        ingest.write(content)
        storage.commit(repository, ingest, digest_of(content))
    return digest_of(content)


def push_image(storage: Storage, repository: str, tag: str, layer: bytes) -> Any:
    push(storage, repository, b"{}")
    push(storage, repository, layer)
    part = '{"mediaType":"a/b","digest":"%s","size":%d}'
    config, blob = (part % (digest_of(each), len(each)) for each in (b"{}", layer))
    content = f'{{"schemaVersion":2,"config":{config},"layers":[{blob}]}}'.encode()
    return storage.put_manifest(repository, tag, content, OCI_MANIFEST)[0]


def test_collection(storage: Storage, tmp_path: Path) -> None:
    kept = push_image(storage, "a", "v1", b"kept")
    going = push_image(storage, "a", "v2", b"going")
    push_image(storage, "b", "v1", b"shared")
    storage.remove_manifest("a", going)
    unneeded = push(storage, "a", b"unneeded")
    shared = push(storage, "a", b"shared")
    assert blobs(tmp_path) >= {kept, going, unneeded, shared}
    assert storage.collect() > 0
    left = blobs(tmp_path)
    assert left >= {kept, digest_of(b"kept"), digest_of(b"{}"), shared}
    assert not left & {going, unneeded, digest_of(b"going")}
    assert storage.blob_size("a", shared) is None  # no manifest needs it there
    assert storage.blob_size("b", shared) == len(b"shared")
    assert storage.collect() == 0


def test_a_push_under_way_is_safe_from_collection(tmp_path: Path) -> None:
    """Layers come before the manifest that needs them, and some are only asked for."""
    content = ContentStore(tmp_path / "content")
    storage = Storage(content, Catalog.open(tmp_path / "registry.db"), grace_s=3600)
    storage._began -= 7200  # it has run for two hours
    new, old, asked = (push(storage, "a", each) for each in (b"new", b"old", b"asked"))
    long_ago = time.time_ns() - 7200 * 10**9
    with storage.catalog._database.transaction() as connection:
        connection.execute("UPDATE blobs SET since_ns = ? WHERE digest != ?", (long_ago, new))
    assert storage.blob_size("a", asked)
    storage.collect()
    assert blobs(tmp_path) == {new, asked}
    assert storage.blob_size("a", old) is None
    storage.close()


def test_a_mount_is_safe_from_collection(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is deleted, and what nothing refers to collected, in the middle of a mount."""
    digest = push(storage, "a", b"mounted")
    add = storage.catalog.add_blob

    def add_late(*values: Any) -> None:
        storage.remove_blob("a", digest)
        storage.collect()
        add(*values)

    monkeypatch.setattr(storage.catalog, "add_blob", add_late)
    assert storage.mount("b", digest, "a")
    opened = storage.open_blob("b", digest)
    with opened.file:
        assert opened.file.read() == b"mounted"


def test_a_young_server_does_not_know_what_was_asked_for(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    storage = Storage(content, Catalog.open(tmp_path / "registry.db"), grace_s=3600)
    old = push(storage, "a", b"old")
    with storage.catalog._database.transaction() as connection:
        connection.execute("UPDATE blobs SET since_ns = 0")
    storage.collect()
    assert blobs(tmp_path) == {old}
    storage.close()


def test_a_lost_blob_is_asked_for_again(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve()
    digest = client.push_blob("a", b"lost")
    (tmp_path / "root" / BLOBS / digest.removeprefix("sha256:")).unlink()
    for method in ("HEAD", "GET"):
        assert client.ask(method, f"/v2/a/blobs/{digest}").status == 404
    client.push_blob("a", b"lost")
    assert client.ask("GET", f"/v2/a/blobs/{digest}").body == b"lost"


def test_a_damaged_manifest_is_not_served(serve: Callable[..., Any], tmp_path: Path) -> None:
    client = serve()
    digest = digest_of(client.push_image("a", "v1"))
    path = tmp_path / "root" / BLOBS / digest.removeprefix("sha256:")
    path.chmod(0o600)
    path.write_bytes(b"{}")
    assert client.ask("GET", "/v2/a/manifests/v1").status == 500


SERVER = """
import sys, time
from pathlib import Path
from cais.registry.server.serving import RegistryOptions, RunningRegistry
with RunningRegistry(RegistryOptions(Path(sys.argv[1]))) as registry:
    print(registry.address, flush=True)
    time.sleep(600)
"""


class Killed:
    """A registry in a process of its own, as far as ``Client`` needs one."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", SERVER, str(root)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_what_was_acknowledged_survives_a_kill(
    serve: Callable[..., Any], client: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    killed = Killed(root)
    try:
        doomed = type(client)(killed)
        content = doomed.push_image("a", "v1")
        doomed.ask("PATCH", doomed.begin("a"), b"half")
    finally:
        killed.kill()
    # As if it had died between a blob and its row.
    (root / BLOBS / digest_of(b"rowless").removeprefix("sha256:")).write_bytes(b"rowless")
    survivor = serve()
    assert survivor.ask("GET", "/v2/a/manifests/v1").body == content
    assert survivor.ask("GET", f"/v2/a/blobs/{digest_of(b'layer')}").body == b"layer"
    assert os.listdir(root / "content/ingest") == []
    assert blobs(root) == {digest_of(content), digest_of(b"layer"), digest_of(b"{}")}


# Beside an engine


def write(store: ContentStore, content: bytes) -> Any:
    with store.leases.open() as lease:
        return store.write(content, lease).digest


def inode(root: Path, digest: str) -> int:
    return (root / "blobs/sha256" / digest.removeprefix("sha256:")).stat().st_ino


def test_bytes_are_shared_in_both_directions(tmp_path: Path) -> None:
    engine, registry = tmp_path / "engine", tmp_path / "registry"
    theirs = ContentStore(engine)
    ours = LinkedStore(registry, engine)
    for first, second in ((theirs, ours), (ours, theirs)):
        digest = write(first, b"from " + type(first).__name__.encode())
        if second is ours:
            write(second, b"from " + type(first).__name__.encode())
        assert second.stat(digest).size_bytes == first.stat(digest).size_bytes
        assert inode(engine, digest) == inode(registry, digest)
    assert os.listdir(registry / "ingest") == []


def test_each_deletes_its_own_name(tmp_path: Path) -> None:
    theirs = ContentStore(tmp_path / "engine")
    ours = LinkedStore(tmp_path / "registry", tmp_path / "engine")
    digest = write(theirs, b"shared")
    write(ours, b"shared")
    write(ours, b"shared")  # again: nothing is left in the ingest
    assert os.listdir(tmp_path / "registry/ingest") == []
    assert theirs.collect(()) == 0  # the registry needs it
    assert theirs.stat(digest)
    ours.collect(())
    with pytest.raises(Exception, match="does not exist"):
        ours.stat(digest)
    assert theirs.collect(()) == len(b"shared")


@pytest.mark.parametrize("damaged", [b"who", b"whome"])
def test_a_damaged_neighbour_is_mended(tmp_path: Path, damaged: bytes) -> None:
    """What was pushed is kept, whatever lies there in its place, cut off or with a bit flipped."""
    theirs = ContentStore(tmp_path / "engine")
    ours = LinkedStore(tmp_path / "registry", tmp_path / "engine")
    digest = write(theirs, b"whole")
    path = tmp_path / "engine/blobs/sha256" / digest.removeprefix("sha256:")
    path.chmod(0o600)
    path.write_bytes(damaged)
    with theirs.open_blob(digest) as reading:
        write(ours, b"whole")
        assert reading.read() == damaged  # who reads meanwhile is not disturbed
    assert ours.read(digest, 100) == theirs.read(digest, 100) == b"whole"
    assert inode(tmp_path / "engine", digest) == inode(tmp_path / "registry", digest)
    assert os.listdir(tmp_path / "registry/ingest") == []


def test_without_links_there_are_two_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    theirs = ContentStore(tmp_path / "engine")
    ours = LinkedStore(tmp_path / "registry", tmp_path / "engine")
    digest = write(theirs, b"twice")
    write(ours, b"twice")
    assert inode(tmp_path / "engine", digest) != inode(tmp_path / "registry", digest)
