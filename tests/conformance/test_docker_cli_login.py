"""Logging in: the docker CLI and ours, at registries with passwords and with tokens."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from cais.testing import token_server
from cais.testing.archives import docker_archive, tar_of
from cais.testing.docker_registry import DockerRegistry, serving_beside
from cais.testing.token_server import PASSWORD, TOKEN, USER

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

    Client = Callable[..., subprocess.CompletedProcess[str]]

BASIC_PORT, TOKEN_PORT, SERVER_PORT = 5061, 5062, 5063


@pytest.fixture(scope="module")
def basic(daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("basic")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "htpasswd").write_text(f"{USER}:{hashed}\n")
    auth = f"auth: {{htpasswd: {{realm: basic, path: '{directory}/htpasswd'}}}}"
    with DockerRegistry(daemon, directory, auth, port=BASIC_PORT) as registry:
        yield registry.name


@pytest.fixture(scope="module")
def token(
    daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A registry that wants tokens, and where their server notes what it was asked."""
    directory = tmp_path_factory.mktemp("token")
    auth = token_server.prepare(directory, SERVER_PORT)
    command = (sys.executable, "-m", "cais.testing.token_server", str(SERVER_PORT), str(directory))
    with (
        serving_beside(daemon, SERVER_PORT, *command),
        DockerRegistry(daemon, directory, auth, port=TOKEN_PORT) as registry,
    ):
        yield registry.name, directory / "requests.jsonl"


@pytest.fixture(params=["docker", "cais"])
def client(request: pytest.FixtureRequest, daemon: TestDaemon) -> Iterator[Client]:
    yield getattr(daemon, request.param)
    for name in (f"localhost:{BASIC_PORT}", f"localhost:{TOKEN_PORT}"):
        daemon.docker("logout", name)


def load(daemon: TestDaemon, name: str) -> None:
    layer = tar_of({"file": os.urandom(100)})
    daemon.docker("load", stdin=docker_archive(name, [layer], Cmd=["/file"]))


def configuration(daemon: TestDaemon) -> dict[str, Any]:
    path = daemon.directory / "docker-config" / "config.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


# What other docker CLIs than 28 say instead, before they ask anybody: 20.10, and at last 29.
OTHER_WORDS = {
    "credentials are stored unencrypted": "password will be stored unencrypted",
    "the --password-stdin option requires --username to be set": (
        "Must provide --username with --password-stdin"
    ),
    "cannot specify both --password and --password-stdin": (
        "--password and --password-stdin are mutually exclusive"
    ),
    "Cannot perform an interactive login from a non TTY device": (
        "cannot perform an interactive login from a non TTY device"
    ),
}


def in_words_of_its_version(client: Client, words: str) -> str:
    return OTHER_WORDS.get(words, words) if client.__name__ == "docker" else words


def log_in(client: Client, registry: str, password: str = PASSWORD, *, check: bool = True) -> Any:
    return client("login", "-u", USER, "--password-stdin", registry, stdin=password, check=check)


def test_a_password(daemon: TestDaemon, client: Client, basic: str) -> None:
    name = f"{basic}/box:{client.__name__}"
    load(daemon, name)
    refused = client("push", name, check=False)
    assert refused.returncode == 1
    assert "no basic auth credentials" in refused.stderr
    done = log_in(client, basic)
    assert done.stdout == "Login Succeeded\n"
    warned = "credentials are stored unencrypted"
    assert warned in done.stderr or in_words_of_its_version(client, warned) in done.stderr
    assert "auth" in configuration(daemon)["auths"][basic]
    assert "digest: sha256:" in client("push", name).stdout
    daemon.docker("rmi", name)
    client("pull", name)
    said = client("logout", basic).stdout
    assert said == f"Removing login credentials for {basic}\n"
    assert basic not in configuration(daemon).get("auths", {})
    daemon.docker("rmi", name)
    assert client("pull", name, check=False).returncode == 1


def test_a_wrong_password(client: Client, basic: str) -> None:
    wrong = log_in(client, basic, "wrong", check=False)
    assert wrong.returncode == 1
    assert "unauthorized" in wrong.stderr


def asked(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_an_identity_token(daemon: TestDaemon, client: Client, token: tuple[str, Path]) -> None:
    """Logging in gives one; from then on no password is sent any more."""
    registry, log = token
    name = f"{registry}/team/box:{client.__name__}"
    load(daemon, name)
    log_in(client, registry)
    entry = configuration(daemon)["auths"][registry]
    assert entry["identitytoken"] == TOKEN
    log.unlink()
    assert "digest: sha256:" in client("push", name).stdout
    assert {request["method"] for request in asked(log)} == {"POST"}
    assert asked(log)[0]["scope"] == ["repository:team/box:pull,push"]
    daemon.docker("rmi", name)
    log.unlink()
    client("pull", name)
    assert [request["scope"] for request in asked(log)] == [["repository:team/box:pull"]]
    daemon.docker("rmi", name)


def test_a_token_server_that_refuses(client: Client, token: tuple[str, Path]) -> None:
    registry, _ = token
    wrong = log_in(client, registry, "wrong", check=False)
    assert wrong.returncode == 1
    assert "incorrect username or password" in wrong.stderr


def test_nobody_may_not(daemon: TestDaemon, client: Client, token: tuple[str, Path]) -> None:
    registry, _ = token
    refused = client("pull", f"{registry}/team/secret", check=False)
    assert refused.returncode == 1
    assert f"pull access denied for {registry}/team/secret, repository does not" in refused.stderr
    del daemon


def test_mounting_asks_for_both_repositories(daemon: TestDaemon, token: tuple[str, Path]) -> None:
    registry, log = token
    log_in(daemon.docker, registry)
    name, other = f"{registry}/one:1", f"{registry}/two:1"
    load(daemon, name)
    daemon.docker("push", name)
    daemon.docker("tag", name, other)
    assert "Mounted from one" in daemon.docker("push", other).stdout
    assert ["repository:two:pull,push repository:one:pull"] in [
        request.get("scope") for request in asked(log)
    ]
    daemon.docker("rmi", name, other)
    daemon.docker("logout", registry)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("login", "--password-stdin", "localhost:1"),
            "the --password-stdin option requires --username to be set",
        ),
        (
            ("login", "-u", "x", "-p", "y", "--password-stdin"),
            "cannot specify both --password and --password-stdin",
        ),
        (("login", "localhost:1"), "Cannot perform an interactive login from a non TTY device"),
        (("search", "--limit", "101", "x"), "limit 101 is outside the range of [1, 100]"),
        (("search", "--filter", "a=b", "x"), "invalid filter 'a'"),
        (("search", f"localhost:{BASIC_PORT}/x"), f"localhost:{BASIC_PORT} offers no search"),
    ],
)
def test_both_command_lines_refuse(
    client: Client, basic: str, arguments: tuple[str, ...], said: str
) -> None:
    del basic
    result = client(*arguments, check=False)
    assert result.returncode == 1
    assert said in result.stderr or in_words_of_its_version(client, said) in result.stderr
