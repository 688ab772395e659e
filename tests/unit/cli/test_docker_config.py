"""Credentials in docker's configuration file and in helpers."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cais.cli.docker_config import HUB, DockerConfig, registry_auth, server_of
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.example.com:5000"
JANE = {"username": "jane", "password": "a:b"}
HELPER = r"""#!/bin/sh
echo "$1" >> {log}
case "$1" in
  get) read -r server; cat "{kept}/$(echo "$server" | tr / _)" 2>/dev/null && exit
       echo "credentials not found in native keychain"; exit 1 ;;
  store) cat > {kept}/stored ;;
  erase) cat > {kept}/erased ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(tmp_path / "config"), "HOME": "/nowhere"}


def write(environment: dict[str, str], document: Any) -> None:
    os.makedirs(environment["DOCKER_CONFIG"], exist_ok=True)
    with open(f"{environment['DOCKER_CONFIG']}/config.json", "w", encoding="utf-8") as file:
        json.dump(document, file)


def read(environment: dict[str, str]) -> Any:
    with open(f"{environment['DOCKER_CONFIG']}/config.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a helper on PATH; returns where it keeps what."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "docker-credential-toy"
    program.write_text(
        HELPER.replace("{log}", str(tmp_path / "log")).replace("{kept}", str(tmp_path))
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("docker.io", HUB),
        ("https://index.docker.io/v1/", HUB),
        ("", HUB),
        (HOST, HOST),
        (f"https://{HOST}/v2/", HOST),
    ],
)
def test_under_which_name(text: str, server: str) -> None:
    assert server_of(text) == server


def test_nobody(environment: dict[str, str]) -> None:
    assert DockerConfig(environment).get(HOST) == {"serveraddress": HOST}


def test_kept_in_the_file(environment: dict[str, str]) -> None:
    write(environment, {"HttpHeaders": {"a": "b"}, "auths": {"other": {"auth": "eDp5"}}})
    DockerConfig(environment).store(HOST, JANE)
    assert read(environment) == {
        "HttpHeaders": {"a": "b"},
        "auths": {"other": {"auth": "eDp5"}, HOST: {"auth": "amFuZTphOmI="}},
    }
    path = f"{environment['DOCKER_CONFIG']}/config.json"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert DockerConfig(environment).get(HOST) == {**JANE, "serveraddress": HOST}
    DockerConfig(environment).erase(HOST)
    assert list(read(environment)["auths"]) == ["other"]


def test_an_identity_token_instead_of_the_password(environment: dict[str, str]) -> None:
    auth = {"username": "jane", "identitytoken": "token"}
    DockerConfig(environment).store(HOST, auth)
    entry = read(environment)["auths"][HOST]
    assert entry == {"auth": base64.b64encode(b"jane:").decode(), "identitytoken": "token"}
    assert DockerConfig(environment).get(HOST) == {"serveraddress": HOST, "identitytoken": "token"}


def test_a_link_stays_one(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    os.makedirs(environment["DOCKER_CONFIG"])
    os.symlink(tmp_path / "real.json", f"{environment['DOCKER_CONFIG']}/config.json")
    DockerConfig(environment).store(HOST, JANE)
    assert "auths" in json.loads((tmp_path / "real.json").read_text())


def test_urls_of_old_name_the_same_host(environment: dict[str, str]) -> None:
    write(environment, {"auths": {f"https://{HOST}/v1/": {"auth": "amFuZTphOmI="}}})
    assert DockerConfig(environment).get(HOST)["username"] == "jane"
    assert "username" not in DockerConfig(environment).get("registry.example.com")


@pytest.mark.parametrize("entry", [{"auth": "%%%"}, {"auth": "gIA="}, {"auth": 7}])
def test_malformed_credentials(environment: dict[str, str], entry: dict[str, Any]) -> None:
    write(environment, {"auths": {HOST: entry}})
    with pytest.raises(InvalidArgumentError, match="malformed credentials"):
        DockerConfig(environment).get(HOST)


@pytest.mark.parametrize("document", [[], {"auths": []}, {"auths": {HOST: None}}, {"auths": None}])
def test_other_shapes_hold_nothing(environment: dict[str, str], document: Any) -> None:
    write(environment, document)
    assert DockerConfig(environment).get(HOST) == {"serveraddress": HOST}


def test_a_helper_is_asked_told_and_made_forget(environment: dict[str, str], kept: Path) -> None:
    write(environment, {"credsStore": "toy"})
    (kept / HOST).write_text('{"ServerURL":"x","Username":"jane","Secret":"s"}')
    config = DockerConfig(environment)
    assert config.get(HOST) == {"serveraddress": HOST, "username": "jane", "password": "s"}
    (kept / HOST).write_text('{"ServerURL":"x","Username":"<token>","Secret":"t"}')
    assert config.get(HOST) == {"serveraddress": HOST, "identitytoken": "t"}
    config.store(HOST, JANE)
    assert json.loads((kept / "stored").read_text()) == {
        "ServerURL": HOST,
        "Username": "jane",
        "Secret": "a:b",
    }
    config.store(HOST, {"username": "jane", "identitytoken": "t"})
    assert json.loads((kept / "stored").read_text())["Username"] == "<token>"
    config.erase(HOST)
    assert (kept / "erased").read_text() == HOST
    assert read(environment) == {"credsStore": "toy"}


def test_one_helper_for_one_server(environment: dict[str, str], kept: Path) -> None:
    write(environment, {"credHelpers": {HOST: "toy"}, "auths": {"other": {"auth": "eDp5"}}})
    (kept / HOST).write_text('{"Username":"jane","Secret":"s"}')
    assert DockerConfig(environment).get(HOST)["username"] == "jane"
    assert DockerConfig(environment).get("other")["username"] == "x"
    assert (kept / "log").read_text() == "get\n"


def test_what_a_helper_does_not_know_may_be_in_the_file(
    environment: dict[str, str], kept: Path
) -> None:
    del kept
    write(environment, {"credsStore": "toy", "auths": {HOST: {"auth": "amFuZTphOmI="}}})
    assert DockerConfig(environment).get(HOST)["username"] == "jane"


@pytest.mark.parametrize("name", ["../../tmp/x", "a/b", "A", "a b", "a;b", ["toy"]])
def test_d7_a_helper_is_named_and_not_placed(environment: dict[str, str], name: Any) -> None:
    write(environment, {"credsStore": name})
    with pytest.raises(InvalidArgumentError, match="invalid credential helper name"):
        DockerConfig(environment).get(HOST)


def test_a_helper_that_is_not_there(environment: dict[str, str]) -> None:
    write(environment, {"credsStore": "nowhere-to-be-found"})
    with pytest.raises(InvalidArgumentError, match="docker-credential-nowhere-to-be-found"):
        DockerConfig(environment).get(HOST)


def test_the_header(environment: dict[str, str]) -> None:
    DockerConfig(environment).store(HUB, JANE)
    decoded = json.loads(base64.urlsafe_b64decode(registry_auth(environment, "docker.io")))
    assert decoded == {**JANE, "serveraddress": HUB}
