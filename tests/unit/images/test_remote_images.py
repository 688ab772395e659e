"""Registries as the engine sees them: mirrors first, the policy, Docker's words."""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING

import pytest

from cais.content.store import Ingest
from cais.errors import (
    DeadlineError,
    ExhaustedError,
    ForbiddenError,
    InternalError,
    NotFoundError,
)
from cais.images import downloads
from cais.images.remote import RemoteImages, domain_of
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.registry.options import RegistryOptions
from cais.spec.digest import digest_of
from cais.spec.image import OCI_INDEX, OCI_MANIFEST
from cais.spec.reference import parse_reference
from cais.testing.image_store import open_image_store
from cais.testing.registry_shelf import LAYERS, PATH, Shelf, describe
from cais.testing.scripted_registry import answering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.testing.scripted_registry import Asked, Reply, Server

USER = Credentials("jane", "secret")
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def server() -> Iterator[Server]:
    with answering(Shelf().serve) as serving:
        yield serving


@pytest.fixture
def remote(store: ImageStore, tmp_path: Path) -> Iterator[RemoteImages]:
    options = RegistryOptions(
        file=tmp_path / "registries.toml", policy_file=tmp_path / "policy.toml", certificates=()
    )
    with contextlib.closing(RemoteImages(store, options)) as made:
        yield made


def name_at(server: Server) -> str:
    return f"{server.origin.netloc}/{PATH}"


def pull(remote: RemoteImages, name: str, credentials: Credentials = ANONYMOUS) -> bool:
    wanted = parse_reference(name).with_default_tag()
    return remote.pull(wanted, None, credentials, lambda _: None, Cancel())


def test_a_pull(remote: RemoteImages, server: Server, store: ImageStore) -> None:
    name = name_at(server)
    assert pull(remote, name)
    assert not pull(remote, name)
    assert store.resolve(name)


def test_a_policy_counts_from_when_it_is_written(
    remote: RemoteImages, server: Server, tmp_path: Path
) -> None:
    name = name_at(server)
    pull(remote, name)
    rule = f'[[rule]]\nscope = "{server.origin.netloc}"\nrequire = "deny"\n'
    (tmp_path / "policy.toml").write_text(rule)
    with pytest.raises(ForbiddenError, match=r"refused by policy .*/policy\.toml, rule '127\.0"):
        pull(remote, name)
    (tmp_path / "policy.toml").unlink()
    pull(remote, name)


@pytest.mark.parametrize("lacking", [True, False])
def test_mirrors_come_first(
    store: ImageStore, server: Server, tmp_path: Path, *, lacking: bool
) -> None:
    """One without the image is passed over; none is told who asks."""
    rules = tmp_path / "registries.toml"

    def mirror(asked: Asked) -> Reply:
        is_lost = lacking and "/manifests/" in asked.target
        return (404, {}, b"{}") if is_lost else Shelf().serve(asked)

    with answering(mirror) as other:
        rules.write_text(
            f'[[registry]]\nname = "{server.origin.netloc}"\nmirrors = ["{other.origin}"]\n'
        )
        options = RegistryOptions(rules, tmp_path / "policy.toml", certificates=())
        with contextlib.closing(RemoteImages(store, options)) as remote:
            pull(remote, name_at(server), USER)
    assert other.seen
    assert not other.secrets()
    blobs = [target for _, target, _ in server.seen if "/blobs/" in target]
    assert bool(blobs) is lacking


LAYER = f"/v2/{PATH}/blobs/{digest_of(LAYERS[1])}"
MANIFEST = f"/v2/{PATH}/manifests/latest"
TAGS = f"/v2/{PATH}/tags/list"
STRANGE = describe(b"{}", OCI_MANIFEST, platform={"os": "plan9", "architecture": "vax"})
INDEX = json.dumps({"schemaVersion": 2, "manifests": [STRANGE]}).encode()
FAULTS: dict[str, tuple[str, Reply]] = {
    "breaks": (LAYER, (200, {"Content-Length": "2048", "Connection": "close"}, b"x")),
    "other bytes": (LAYER, (200, {}, b"x" * len(LAYERS[1]))),
    "more": (LAYER, (200, {}, LAYERS[1] + b"x")),
    "ails": (MANIFEST, (503, {}, b"")),
    "busy": (MANIFEST, (429, {}, b"")),
    "nonsense": (MANIFEST, (200, {"Content-Type": OCI_MANIFEST}, b"<html>")),
    "endless": (MANIFEST, (200, {}, bytes(5_000_000))),
    "another platform": (MANIFEST, (200, {"Content-Type": OCI_INDEX}, INDEX)),
    "leads astray": (MANIFEST, (307, {"Location": "ftp://127.0.0.1/x"}, b"")),
}


@pytest.fixture
def mirrored(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Server, Server], RemoteImages]]:
    """Make the registries: (a mirror, whose it is). What is tried again is so at once."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    monkeypatch.setattr(downloads, "_RETRY_PAUSE_S", 0)
    with contextlib.ExitStack() as stack:

        def made(mirror: Server, registry: Server) -> RemoteImages:
            rules = tmp_path / "registries.toml"
            rule = f'name = "{registry.origin.netloc}"\nmirrors = ["{mirror.origin}"]\n'
            rules.write_text(f"[[registry]]\n{rule}")
            options = RegistryOptions(rules, tmp_path / "policy.toml", certificates=())
            return stack.enter_context(contextlib.closing(RemoteImages(store, options)))

        yield made


def with_fault(target: str, reply: Reply) -> Callable[[Asked], Reply]:
    """Return an honest registry that fails at one thing."""
    return lambda asked: reply if asked.target == target else Shelf().serve(asked)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_a_mirror_the_registry_is_asked(
    mirrored: Callable[..., RemoteImages], server: Server, store: ImageStore, fault: str
) -> None:
    target, reply = FAULTS[fault]
    with answering(with_fault(target, reply)) as mirror:
        assert pull(mirrored(mirror, server), name_at(server))
    assert target in [asked for _, asked, _ in mirror.seen]
    assert LAYER in [asked for _, asked, _ in server.seen]
    assert store.resolve(name_at(server)).id == digest_of(Shelf().config)


@pytest.mark.parametrize("fault", ["ails", "nonsense", "leads astray"])
def test_the_registry_has_the_last_word(
    mirrored: Callable[..., RemoteImages], server: Server, fault: str
) -> None:
    target, reply = FAULTS[fault]
    name = f"{name_at(server)}:none"
    with (
        answering(with_fault(target.replace("latest", "none"), reply)) as mirror,
        pytest.raises(NotFoundError) as refused,
    ):
        pull(mirrored(mirror, server), name)
    assert str(refused.value).startswith(f"manifest for {name} not found: manifest unknown")


def test_what_the_policy_refuses_is_refused_everywhere(
    mirrored: Callable[..., RemoteImages], server: Server, tmp_path: Path
) -> None:
    rule = f'[[rule]]\nscope = "{server.origin.netloc}"\nrequire = "deny"\n'
    (tmp_path / "policy.toml").write_text(rule)
    with (
        answering(Shelf().serve) as mirror,
        pytest.raises(ForbiddenError, match="refused by policy"),
    ):
        pull(mirrored(mirror, server), name_at(server))
    assert not [target for _, target, _ in (*mirror.seen, *server.seen) if "/blobs/" in target]


def test_a_full_disk_is_no_mirror_s_fault(
    mirrored: Callable[..., RemoteImages], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ExhaustedError("write a blob: no space left on device")

    monkeypatch.setattr(Ingest, "write", full)
    with answering(Shelf().serve) as mirror, pytest.raises(ExhaustedError, match="no space left"):
        pull(mirrored(mirror, server), name_at(server))
    assert server.seen == []


def test_a_pull_that_is_given_up_asks_nobody_else(
    mirrored: Callable[..., RemoteImages], server: Server
) -> None:
    cancel = Cancel()

    def until_given_up(asked: Asked) -> Reply:
        if asked.target == MANIFEST:
            cancel.set()
        return Shelf().serve(asked)

    wanted = parse_reference(name_at(server)).with_default_tag()
    with answering(until_given_up) as mirror, pytest.raises(DeadlineError):
        mirrored(mirror, server).pull(wanted, None, ANONYMOUS, lambda _: None, cancel)
    assert server.seen == []


@pytest.mark.parametrize("reply", [(404, {}, b"{}"), (503, {}, b""), (200, {}, b"<html>")])
def test_what_a_mirror_cannot_say_the_registry_is_asked(
    mirrored: Callable[..., RemoteImages], reply: Reply
) -> None:
    """For ``docker pull -a`` and ``GET /distribution/{name}/json``."""
    tags = b'{"name":"team/box","tags":["latest"]}'
    with (
        answering(lambda asked: (200, {}, b"{}") if asked.target == "/v2/" else reply) as mirror,
        answering(with_fault(TAGS, (200, {}, tags))) as server,
    ):
        remote = mirrored(mirror, server)
        name = parse_reference(name_at(server))
        assert remote.each_tag(name, ANONYMOUS, Cancel()) == [name.with_default_tag()]
        described = remote.describe(name, ANONYMOUS, Cancel())["Descriptor"]
        assert described["digest"] == digest_of(Shelf().manifests["latest"][1])
    assert {TAGS, MANIFEST} <= {target for _, target, _ in mirror.seen}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "pull access denied for {}, repository does not exist or may require 'docker"),
        (403, b'{"errors":[{"code":"DENIED"}]}', "pull access denied for {}, repository"),
        (404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}', "repository {} not found: name unknown"),
        (404, b"{}", "manifest for {}:latest not found"),
    ],
)
def test_refusals_in_docker_s_words(
    remote: RemoteImages, status: int, body: bytes, said: str
) -> None:
    def script(asked: Asked) -> Reply:
        return (200, {}, b"{}") if asked.target == "/v2/" else (status, {}, body)

    with answering(script) as server:
        name = name_at(server)
        with pytest.raises(NotFoundError) as refused:
            pull(remote, name)
        assert str(refused.value).startswith(said.format(name))


def test_no_password_where_one_is_wanted(remote: RemoteImages) -> None:
    with (
        answering(lambda _: (401, BASIC, b"{}")) as server,
        pytest.raises(InternalError, match="no basic auth credentials"),
    ):
        pull(remote, name_at(server))


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("http://localhost:5000/v2/", "localhost:5000"),
    ],
)
def test_servers_as_clients_name_them(server: str, domain: str) -> None:
    assert domain_of(server) == domain
