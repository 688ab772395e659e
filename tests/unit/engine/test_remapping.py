"""What ``--userns-remap`` decides about a container that is created."""

from __future__ import annotations

import contextlib
import grp
import pwd
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from cais.engine import mapped_roots, remapped_root
from cais.engine.records import ContainerRecord
from cais.engine.user_namespaces import Users
from cais.errors import InternalError, InvalidArgumentError, UnsupportedError
from cais.linux import subordinate_ids
from cais.spec.conversion import decoder
from cais.spec.identities import IdentityMaps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAPS = IdentityMaps(((0, 100_000, 65_536),), ((0, 200_000, 65_536),))


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have roots be shown mapped here, and count how often that was tried."""
    seen: list[str] = []

    @contextlib.contextmanager
    def look(_core: object, record: ContainerRecord) -> Iterator[int]:
        seen.append(record.id)
        yield -1

    monkeypatch.setattr(mapped_roots, "open_stopped_root", look)
    return seen


def remap(bench: Any, maps: IdentityMaps | None = MAPS) -> None:
    object.__setattr__(bench.core.config, "identities", maps)


async def test_a_container_has_the_daemon_s_maps_at_its_creation(
    bench: Any, probes: list[str]
) -> None:
    remap(bench)
    ours = await bench.create()
    hosts = await bench.create(userns_mode="host")
    remap(bench, None)
    plain = await bench.create()
    records = [bench.core.table.resolve(each).record for each in (ours, hosts, plain)]
    assert [record.identities for record in records] == [MAPS, None, None]
    assert probes == [ours]
    encoded = msgspec.json.encode(records[0])
    assert decoder(ContainerRecord)(encoded).identities == MAPS


async def test_it_is_tried_once(bench: Any, probes: list[str]) -> None:
    remap(bench)
    made = bench.core.table.resolve(await bench.create()).record
    layered = replace(made, parent="sha256:" + "0" * 64)
    roots = mapped_roots.MappedRoots()
    for record in (made, layered, layered, made):
        await bench.core.threads.run(roots.check, bench.core, record)
    assert len(probes) == 1 + 2  # one without layers proves nothing of them


async def test_without_mapped_mounts_nothing_is_created(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel, or the file system of the data root, is too old for them."""

    @contextlib.contextmanager
    def refuse(*_: object) -> Iterator[int]:
        raise InternalError("mount_setattr idmap: invalid argument")
        yield

    monkeypatch.setattr(mapped_roots, "open_stopped_root", refuse)
    remap(bench)
    with pytest.raises(UnsupportedError) as refused:
        await bench.create()
    for part in ("ID-mapped", "mount_setattr idmap: invalid argument", "--userns=host"):
        assert part in str(refused.value)
    assert len(bench.core.table) == 0
    assert await bench.create(userns_mode="host")


async def test_who_gets_which_namespaces() -> None:
    assert Users().key == ""
    assert Users(MAPS).key == Users(IdentityMaps(MAPS.uid, MAPS.gid)).key
    assert Users(source="/a").key != Users(source="/b").key != Users(MAPS).key


# The flag


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def user(name: str, uid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/false"))

    def group(name: str, gid: int) -> grp.struct_group:
        return grp.struct_group((name, "x", gid, []))

    users = [user("root", 0), user("ann", 7), user("lone", 8), user("bare", 9)]
    groups = [group("root", 0), group("ann", 7), group("bare", 9)]
    monkeypatch.setattr(pwd, "getpwnam", {each.pw_name: each for each in users}.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", {each.pw_uid: each for each in users}.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", {each.gr_name: each for each in groups}.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", {each.gr_gid: each for each in groups}.__getitem__)
    for name, start in (("SUBUID", 100_000), ("SUBGID", 200_000)):
        path = tmp_path / name
        path.write_text(f"ann:{start}:10\nann:500:5\n")
        monkeypatch.setattr(subordinate_ids, name, str(path))


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("value", ["ann", "7", "ann:bare", "7:9", "ann:9"])
def test_every_form_of_it(value: str) -> None:
    found = remapped_root.load_identities(value)
    assert found == IdentityMaps(((0, 100_000, 10), (10, 500, 5)), ((0, 200_000, 10), (10, 500, 5)))


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("value", ["", "root", "0", "0:0"])
def test_root_cannot_be_itself(value: str) -> None:
    assert remapped_root.load_identities(value) is None


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("nosuch", 'Error during uid lookup for "nosuch"'),
        ("5", "Uid 5 has no entry in /etc/passwd"),
        ("8", "Gid 8 has no entry in /etc/group"),
        ("lone", 'Error during gid lookup for "lone"'),
        ("ann:nosuch", 'Error during groupname lookup for "nosuch"'),
        ("ann:5", "Gid 5 has no entry in /etc/passwd"),
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ("bare", 'Can\'t create ID mappings: no subuid ranges found for user "bare"'),
    ],
)
def test_what_is_no_value_for_it(value: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        remapped_root.load_identities(value)
    assert str(refused.value).startswith(text)


@pytest.mark.parametrize(
    ("taken", "first"),
    [
        ([], 100_000),
        ([(100_000, 65_536)], 165_536),
        ([(231_072, 65_536), (100_000, 65_536)], 165_536),
        ([(100_001, 1), (150_000, 100_000)], 250_000),
        ([(1000, 5)], 100_000),
    ],
)
def test_dockremap_gets_ids_that_nobody_has(taken: list[tuple[int, int]], first: int) -> None:
    assert remapped_root._first_free(taken) == first
