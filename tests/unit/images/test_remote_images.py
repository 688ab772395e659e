"""Registries as the engine sees them: mirrors first, the policy, Docker's words."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from cais.errors import ForbiddenError, InternalError, NotFoundError
from cais.images.remote import RemoteImages, domain_of
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.registry.options import RegistryOptions
from cais.spec.reference import parse_reference
from cais.testing.image_store import open_image_store
from cais.testing.registry_shelf import PATH, Shelf
from cais.testing.scripted_registry import answering

if TYPE_CHECKING:
    from collections.abc import Iterator
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
