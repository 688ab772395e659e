"""SECURITY.md C1, C2, C4: the evil layers through load, import and pull, unpacked by a worker."""

import gzip
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from evil_layers import ARCHIVES, archive_of, make_precious

from cais.errors import CaisError, ExhaustedError, InvalidArgumentError
from cais.images import archive
from cais.images.downloads import Downloads
from cais.images.importer import import_rootfs
from cais.images.policy import Policy
from cais.images.pulling import Pull
from cais.images.store import ImageStore
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.repository import Repository
from cais.spec.image import OCI_LAYER_GZIP
from cais.spec.reference import parse_reference
from cais.testing.image_store import docker_archive, left_over, open_image_store
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, fingerprint, header, pax_record, tar
from cais.testing.registry_shelf import PATH, Shelf
from cais.testing.scripted_registry import serving, transport

MIB = 1024 * 1024
LOWER = tar([Member("a/", kind=b"5", mode=0o755), Member("a/file", b"x")])
Way = Callable[[ImageStore, bytes], None]


def by_load(store: ImageStore, layer: bytes) -> None:
    archive.load(io.BytesIO(docker_archive([LOWER, layer])), store)


def by_import(store: ImageStore, layer: bytes) -> None:
    import_rootfs(io.BytesIO(layer), store, repository="test")


def by_pull(store: ImageStore, layer: bytes) -> None:
    shelf = Shelf(
        [LOWER, layer], [gzip.compress(LOWER, 1), gzip.compress(layer, 1)], OCI_LAYER_GZIP
    )
    with serving(shelf.answer) as server, transport() as carrier:
        origin, cancel = server.origin, Cancel()
        auth = Authenticator(carrier, origin, ANONYMOUS)
        Pull(
            store,
            Downloads(store.content),
            Repository(carrier, origin, PATH, auth, cancel),
            parse_reference("test").with_default_tag(),
            platform=None,
            policy=Policy("none"),
            cancel=cancel,
            report=lambda _: None,
        ).run()


WAYS = [by_load, by_import, by_pull]


@contextmanager
def a_store_beside(place: Path) -> Iterator[tuple[ImageStore, Path]]:
    """Give a store, and a tree of the host that must be the same afterwards."""
    sentinel = make_precious(place / "sentinel")
    before = fingerprint(sentinel)
    with open_image_store(place / "root") as store, store.unpacker.open():
        yield store, sentinel
    assert fingerprint(sentinel) == before
    assert sorted(path.name for path in place.iterdir()) == ["root", "sentinel"]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_outside_is_touched_and_nothing_refused_is_left(tmp_path: Path, way: Way) -> None:
    def body() -> None:
        with a_store_beside(tmp_path) as (store, sentinel):
            before = left_over(store)
            for name, (_, is_refused) in ARCHIVES.items():
                try:
                    way(store, archive_of(name, sentinel))
                except InvalidArgumentError:
                    assert is_refused, name
                else:
                    assert not is_refused, name
                    store.delete("test")
                assert left_over(store) == before, name

    isolated(body, net=False)  # the registry is on this host


BOMBS: dict[str, bytes] = {
    "a PAX header of 2 MiB": header(b"p", b"x", 2 * MIB) + bytes(2 * MIB),
    "a GNU name of 1 MiB": header(b"././@LongLink", b"L", MIB) + b"n" * MIB,
    "an attribute no file can have": tar(
        [Member("f", pax={"SCHILY.xattr.user.big": "x" * 70_000})]
    ),
    "a capability that is none": tar([Member("f", pax={"SCHILY.xattr.security.capability": "x"})]),
    "a sparse file of 8 EiB": tar(
        [
            Member(
                "s",
                pax={
                    "GNU.sparse.size": "9223372036854775807",
                    "GNU.sparse.map": "9223372036854775807,0",
                },
            )
        ]
    ),
    "a file that is cut": header(b"f", b"0", 1 << 33) + bytes(MIB),
    "ten thousand PAX records": header(b"p", b"x", 130_000)
    + b"13 comment=x\n" * 10_000
    + bytes(-130_000 % 512)
    + header(b"f" * 100, b"0", 0)[:300],
    "a record that says more than there is": header(b"p", b"x", 512)
    + pax_record(b"path", b"x" * 9)[:-3].ljust(512, b"\0"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_bomb_costs_an_error(tmp_path: Path, way: Way) -> None:
    def body() -> None:
        with a_store_beside(tmp_path) as (store, _):
            before = left_over(store)
            for name, bomb in BOMBS.items():
                try:
                    way(store, bomb)
                except (InvalidArgumentError, ExhaustedError):
                    pass
                else:
                    pytest.fail(name)
                assert left_over(store) == before, name

    isolated(body, net=False)  # the registry is on this host


def test_names_that_repeat_and_change_kind_end_as_the_last_one_says(tmp_path: Path) -> None:
    entries = [
        Member("name", b"file"),
        Member("name/", kind=b"5", mode=0o755),
        Member("name/below", b"x"),
        Member("name", kind=b"2", link="/etc"),
        Member("name", kind=b"3", device=(1, 3)),
        Member("name", kind=b"6"),
        Member("name\n", b"newline"),
        Member("name", b"last", mode=0o4755, uid=65534),
    ]

    def body() -> None:
        for number, way in enumerate(WAYS):
            place = tmp_path / str(number)
            place.mkdir()
            with a_store_beside(place) as (store, _):
                way(store, tar(entries * 20))
                record = store.resolve("test")
                assert record.chain_id
                root = Path(store.snapshotter.layer(record.chain_id).path)
                assert sorted(path.name for path in root.iterdir()) == ["name", "name\n"]
                assert (root / "name").read_bytes() == b"last"
                facts = (root / "name").stat()
                assert (facts.st_mode & 0o7777, facts.st_uid) == (0o4755, 65534)

    isolated(body, net=False)  # the registry is on this host


def test_many_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each archive fills the layer it belongs to, whatever the others try meanwhile."""
    names = list(ARCHIVES)[:48]

    def body() -> None:
        with a_store_beside(tmp_path) as (store, sentinel), ThreadPoolExecutor(8) as threads:
            before = left_over(store)

            def load(name: str) -> None:
                layer = archive_of(name, sentinel)
                tag = f"test-{names.index(name)}"
                try:
                    archive.load(io.BytesIO(docker_archive([layer], (f"{tag}:latest",))), store)
                except CaisError:
                    assert ARCHIVES[name][1], name
                else:
                    store.delete(tag)

            list(threads.map(load, names))
            assert left_over(store) == before

    isolated(body, net=False)  # the registry is on this host
