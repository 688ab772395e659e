"""SECURITY.md F-15 and F-16 for a registry: what is damaged is found, and comes back by a push."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cais.engine.audit.audit import Outcome, audit
from cais.engine.audit.data_root import DataRoot
from cais.errors import DataLossError, NotFoundError
from cais.registry.server.serving import RegistryOptions, RunningRegistry
from cais.spec.digest import digest_of
from cais.testing.damage import cut, flip

LAYER = b"layer" * 1000
BLOB = f"content/blobs/sha256/{digest_of(LAYER).removeprefix('sha256:')}"


@pytest.fixture
def root(tmp_path: Path, serve: Callable[..., Any]) -> Path:
    """A registry's directory in a data root without an engine; nobody serves it any more."""
    root = tmp_path / "registry"
    client = serve(root)
    client.push_image("team/box", "v1", layers=(LAYER,))
    client.registry.close()
    return root


def check(root: Path, *, repair: bool = False) -> tuple[Outcome, str]:
    said: list[str] = []
    outcome = audit(DataRoot(root.parent), repair=repair, tell=said.append)
    return outcome, "\n".join(said)


def assert_sound(root: Path) -> None:
    outcome, said = check(root)
    assert (outcome.found, said) == ([], "")


def scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"scribble" * 600)


def lose(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def test_a_sound_registry(root: Path, serve: Callable[..., Any]) -> None:
    assert_sound(root)
    serve(root)
    outcome, said = check(root)
    assert outcome.is_sound
    assert said == "not checked: what belongs to nobody in registry: it is being served"
    with pytest.raises(NotFoundError, match="is not a data root"):
        DataRoot(root / "content")


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_a_damaged_blob_is_named_put_aside_and_pushed_again(
    root: Path, serve: Callable[..., Any], damage: Callable[[Path], None]
) -> None:
    damage(root / BLOB)
    outcome, said = check(root)
    assert not outcome.is_sound
    assert digest_of(LAYER) in said
    assert "team/box" in said
    check(root, repair=True)
    assert f"lacks blob {digest_of(LAYER)}: push it again" in check(root)[1]
    client = serve(root)
    assert client.ask("HEAD", f"/v2/team/box/blobs/{digest_of(LAYER)}").status == 404
    client.push_blob("team/box", LAYER)
    assert client.ask("GET", f"/v2/team/box/blobs/{digest_of(LAYER)}").body == LAYER
    client.registry.close()
    assert_sound(root)


def test_a_blob_that_became_shorter_is_unknown_at_once(
    root: Path, serve: Callable[..., Any]
) -> None:
    client = serve(root)
    cut(root / BLOB)
    for method in ("HEAD", "GET"):
        answer = client.ask(method, f"/v2/team/box/blobs/{digest_of(LAYER)}")
        assert answer.status == 404
    client.push_blob("team/box", LAYER)
    assert client.ask("GET", f"/v2/team/box/blobs/{digest_of(LAYER)}").body == LAYER


def test_what_belongs_to_nobody_is_removed(root: Path) -> None:
    stray = root / "content/blobs/sha256" / digest_of(b"stray").removeprefix("sha256:")
    stray.write_bytes(b"stray")
    (root / "content/ingest/half").write_bytes(b"h")
    outcome, said = check(root)
    assert len(outcome.found) == 2
    assert f"blob {digest_of(b'stray')} is in no repository" in said
    assert "ingest/half was never completed" in said
    assert check(root, repair=True)[0].is_sound
    assert_sound(root)


@pytest.mark.parametrize("by", ["check", "server"])
@pytest.mark.parametrize("damage", [scribble, lose])
@pytest.mark.parametrize("name", ["registry.db", "registry.copy.db"])
def test_a_damaged_database_is_rebuilt(
    root: Path, serve: Callable[..., Any], name: str, damage: Callable[[Path], None], by: str
) -> None:
    damage(root / name)
    assert f"database registry/{name} is" in check(root)[1]
    if by == "check":
        assert check(root, repair=True)[0].is_sound
        assert_sound(root)
    client = serve(root)
    assert client.ask("GET", "/v2/team/box/manifests/v1").status == 200
    assert client.ask("GET", f"/v2/team/box/blobs/{digest_of(LAYER)}").body == LAYER
    client.registry.close()
    assert_sound(root)


def test_a_database_lost_with_its_copy_is_refused_and_nothing_is_deleted(root: Path) -> None:
    for name in ("registry.db", "registry.copy.db"):
        lose(root / name)
    before = sorted((root / "content").rglob("*"))
    outcome, said = check(root, repair=True)
    assert not outcome.is_sound
    assert "is gone, and its copy registry.copy.db is gone" in said
    with pytest.raises(DataLossError, match="nothing was deleted"):
        RunningRegistry(RegistryOptions(root)).__enter__()
    assert sorted((root / "content").rglob("*")) == before
