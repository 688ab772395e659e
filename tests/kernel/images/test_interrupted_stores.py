"""SECURITY.md F-4 and F-5: a store whose process is killed, or whose power is cut, at any moment.

The process is stopped before calls that change the data root (``interruptions``), here and there
in the whole of a load, a pull, a commit, a tag and a removal; there it ends. What was acknowledged
before is there, whole; what was on its way is there whole or not at all; nothing else is left; and
the same again works.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.images import archive
from cais.images.committing import Commit, commit_snapshot
from cais.images.downloads import Downloads
from cais.images.policy import Policy
from cais.images.pulling import Pull
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.origin import make_origin
from cais.registry.repository import Repository
from cais.snapshots.snapshotter import SnapshotNotFoundError
from cais.spec.image import ContainerConfig
from cais.spec.reference import parse_reference
from cais.testing.image_store import docker_archive, open_image_store
from cais.testing.interruptions import (
    cut_power,
    interrupt,
    make_disk,
    moments,
    mounted_disk,
    reap_orphans,
)
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar
from cais.testing.registry_shelf import Shelf
from cais.testing.scripted_registry import serving, transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore
    from cais.registry.origin import Origin

    Work = Callable[[ImageStore], object]

pytestmark = pytest.mark.timeout(600)

MOMENTS = 6
DISK_BYTES = 32 << 20
CONTAINER = "c" * 64

FILES = {f"file{number}": os.urandom(3000) for number in range(40)}
OLD = tar([Member("old", b"old" * 5000)])
NEW = tar([Member(name, content) for name, content in FILES.items()])
OLD_ARCHIVE = docker_archive([OLD], ["old:latest"])
NEW_ARCHIVE = docker_archive([OLD, NEW], ["new:latest"])
PULLED = "example.com/team/box:latest"


def load(store: ImageStore) -> None:
    archive.load(io.BytesIO(NEW_ARCHIVE), store)


def tag(store: ImageStore) -> None:
    store.tag("old", "again")


def remove(store: ImageStore) -> None:
    store.delete("old")


def commit(store: ImageStore) -> None:
    base = store.resolve("old")
    store.snapshotter.prepare(CONTAINER, base.chain_id)
    store.snapshotter.mounts(CONTAINER)
    for name, content in FILES.items():
        Path(store.snapshotter.layer(CONTAINER).path, name).write_bytes(content)
    names = [parse_reference("committed:latest")]
    commit_snapshot(store, CONTAINER, base.id, Commit(ContainerConfig()), names)


def puller(origin: Origin) -> Work:
    def pull(store: ImageStore) -> None:
        cancel = Cancel()
        with transport() as carrier:
            auth = Authenticator(carrier, origin, ANONYMOUS)
            source = Repository(carrier, origin, "team/box", auth, cancel)
            Pull(
                store, Downloads(store.content), source, parse_reference(PULLED),
                platform=None, policy=Policy("none"), report=lambda _: None, cancel=cancel,
            ).run()  # fmt: skip

    return pull


def in_store(place: Path, work: Work) -> Callable[[], None]:
    def run() -> None:
        with open_image_store(place) as store:
            work(store)
            os._exit(0)  # nothing is closed: a process that is killed does not either

    return run


def assert_whole(store: ImageStore) -> set[str]:
    """Return the names of the images; whatever is there is whole, and nothing else is there."""
    live = store.catalog.live()
    assert {blob.digest for blob in store.content.walk()} <= live
    assert {snapshot.key for snapshot in store.snapshotter.walk()} <= live
    assert not list((Path(store.content._blobs).parent.parent / "ingest").iterdir())
    for record in store.list():
        assert not record.is_damaged
        for digest in (record.id, record.manifest, *(layer.blob for layer in record.layers)):
            store.content.read(digest, 1 << 30)  # verifies
        assert contents(store, record) in (old_files(), old_files() | FILES, {})
    return {name for record in store.list() for name in record.repo_tags}


def contents(store: ImageStore, record: ImageRecord) -> dict[str, bytes]:
    layer = store.snapshotter.layer(record.chain_id or "")
    return {
        path.name: path.read_bytes()
        for directory in (layer.path, *layer.lowers)
        for path in Path(directory).iterdir()
    }


def old_files() -> dict[str, bytes]:
    return {"old": b"old" * 5000}


def assert_after(
    place: Path, work: Work, name: str, before: set[str], *, is_done: bool = False
) -> None:
    """What is there after an interruption, or after the whole, and after the same once more."""
    with open_image_store(place) as store:
        remove_container(store)
        after = assert_whole(store)
        if is_done:
            assert (after < before) if name == "remove" else (after > before)
        if name == "remove":
            assert after <= before
            store.collect()
            if after:
                work(store)
            assert assert_whole(store) == set()
            return
        assert before <= after
        work(store)
        remove_container(store)
        assert assert_whole(store) > before


def remove_container(store: ImageStore) -> None:
    """As an engine does, which may have no record of it."""
    with contextlib.suppress(SnapshotNotFoundError):
        store.snapshotter.remove(CONTAINER)


@pytest.fixture
def works() -> Iterator[dict[str, Work]]:
    with registry() as origin:
        pull = puller(origin)
        yield {"load": load, "pull": pull, "commit": commit, "tag": tag, "remove": remove}


@contextlib.contextmanager
def registry() -> Iterator[Origin]:
    """Serve from a process of its own: one with threads should not be forked."""
    port_fd, told_fd = os.pipe()
    wait_fd, keep_fd = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(keep_fd)
        with serving(Shelf([OLD, NEW]).answer) as server:
            os.write(told_fd, str(server.origin.port).encode())
            os.read(wait_fd, 1)  # until the test ends
        os._exit(0)
    os.close(wait_fd)
    try:
        yield make_origin("http", "127.0.0.1", int(os.read(port_fd, 8)))
    finally:
        for fd in (keep_fd, port_fd, told_fd):
            os.close(fd)
        os.waitpid(pid, 0)


def prepare(place: Path) -> set[str]:
    with open_image_store(place) as store:
        archive.load(io.BytesIO(OLD_ARCHIVE), store)
        return assert_whole(store)


@pytest.mark.parametrize("name", ["load", "pull", "commit", "tag", "remove"])
def test_a_killed_process(tmp_path: Path, works: dict[str, Work], name: str) -> None:
    work = works[name]
    before = prepare(tmp_path / "template")

    def attempt(moment: int) -> int:
        place = tmp_path / str(moment)
        subprocess.run(["cp", "-a", tmp_path / "template", place], check=True)
        count = interrupt(in_store(place, work), moment, lambda: None)
        assert_after(place, work, name, before, is_done=moment == 0)
        return count

    for moment in moments(attempt(0), MOMENTS):
        attempt(moment)


@pytest.mark.parametrize("name", ["load", "pull", "commit", "tag", "remove"])
def test_a_power_cut(tmp_path: Path, works: dict[str, Work], name: str) -> None:
    work = works[name]
    template, disk, mounted = (tmp_path / each for each in ("template", "disk", "mounted"))
    mounted.mkdir()
    make_disk(template, DISK_BYTES)
    cut = functools.partial(cut_power, mounted)

    def attempt(moment: int, before: set[str]) -> int:
        subprocess.run(["cp", "--sparse=always", template, disk], check=True)
        with mounted_disk(disk, mounted):
            count = interrupt(in_store(mounted, work), moment, cut)
            if moment == 0:
                cut()  # all of it was done, and told
        with mounted_disk(disk, mounted):
            assert_after(mounted, work, name, before, is_done=moment == 0)
        return count

    def body() -> None:
        with mounted_disk(template, mounted):
            before = prepare(mounted)
        for moment in moments(attempt(0, before), MOMENTS):
            attempt(moment, before)
        reap_orphans()

    isolated(body, net=False, timeout_s=500)
