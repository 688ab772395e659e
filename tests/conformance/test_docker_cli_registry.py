"""Push and pull with the real CLI, docker-py's API by it, and Debian's registry."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from cais.testing.archives import docker_archive, tar_of
from cais.testing.docker_registry import DockerRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

REGISTRY = "localhost:5055"


@pytest.fixture(scope="module")
def registry(daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with DockerRegistry(daemon, tmp_path_factory.mktemp("registry")) as running:
        yield running.name


def make_image(daemon: TestDaemon, name: str, *contents: bytes) -> None:
    layers = [tar_of({f"file{index}": content}) for index, content in enumerate(contents)]
    daemon.docker("load", stdin=docker_archive(name, layers, Cmd=["/file0"]))


def inspect(daemon: TestDaemon, name: str) -> dict[str, object]:
    (document,) = json.loads(daemon.docker("image", "inspect", name).stdout)
    found: dict[str, object] = document
    return found


def test_what_was_pushed_comes_back_the_same(daemon: TestDaemon, registry: str) -> None:
    name = f"{registry}/team/box:v1"
    make_image(daemon, name, b"one" * 100_000, b"two")
    before = inspect(daemon, name)
    pushed = daemon.docker("push", name).stdout
    assert pushed.startswith(f"The push refers to repository [{registry}/team/box]")
    assert pushed.count(": Pushed") == 2
    digest = pushed.partition("v1: digest: ")[2].split()[0]
    assert daemon.docker("push", name).stdout.count("Layer already exists") == 2
    daemon.docker("rmi", name)
    pulled = daemon.docker("pull", name).stdout
    assert "v1: Pulling from team/box" in pulled
    assert pulled.count(": Pull complete") == 2
    assert f"Digest: {digest}" in pulled
    assert f"Status: Downloaded newer image for {name}" in pulled
    after = inspect(daemon, name)
    assert (before["Id"], before["RootFS"]) == (after["Id"], after["RootFS"])
    assert after["RepoDigests"] == [f"{registry}/team/box@{digest}"]
    assert f"Status: Image is up to date for {name}" in daemon.docker("pull", name).stdout
    daemon.docker("rmi", name)
    by_digest = f"{registry}/team/box@{digest}"
    assert daemon.docker("pull", "-q", by_digest).stdout.strip() == by_digest
    daemon.docker("rmi", str(after["Id"]))


def test_a_layer_moves_inside_the_registry(daemon: TestDaemon, registry: str) -> None:
    make_image(daemon, f"{registry}/mine/a:1", b"layer")
    daemon.docker("push", f"{registry}/mine/a:1")
    daemon.docker("tag", f"{registry}/mine/a:1", f"{registry}/mine/b:1")
    pushed = daemon.docker("push", f"{registry}/mine/b:1").stdout
    assert "Mounted from mine/a" in pushed
    daemon.docker("rmi", f"{registry}/mine/a:1", f"{registry}/mine/b:1")


def test_all_tags(daemon: TestDaemon, registry: str) -> None:
    for tag in ("1", "2"):
        make_image(daemon, f"{registry}/many:{tag}", tag.encode())
    assert daemon.docker("push", "-a", f"{registry}/many").stdout.count("digest: sha256:") == 2
    daemon.docker("rmi", f"{registry}/many:1", f"{registry}/many:2")
    daemon.docker("pull", "-a", f"{registry}/many")
    listed = daemon.docker("images", f"{registry}/many", "--format", "{{.Tag}}").stdout.split()
    assert sorted(listed) == ["1", "2"]
    daemon.docker("rmi", f"{registry}/many:1", f"{registry}/many:2")


def test_run_pulls_what_is_missing(daemon: TestDaemon, registry: str, busybox_tar: bytes) -> None:
    daemon.docker("load", stdin=busybox_tar)
    name = f"{registry}/busybox:run"
    daemon.docker("tag", "busybox", name)
    daemon.docker("push", name)
    daemon.docker("rmi", name)
    result = daemon.docker("run", "--rm", "--network", "none", name, "echo", "pulled")
    assert result.stdout == "pulled\n"
    assert f"Unable to find image '{name}' locally" in result.stderr
    daemon.docker("rmi", name)


def test_our_own_command_line(daemon: TestDaemon, registry: str) -> None:
    name = f"{registry}/ours:1"
    make_image(daemon, name, b"ours")
    assert "1: digest: sha256:" in daemon.cais("push", name).stdout
    daemon.cais("rmi", name)
    pulled = daemon.cais("pull", name).stdout
    assert f"Status: Downloaded newer image for {name}" in pulled
    assert pulled.endswith(f"\n{name}\n")
    daemon.cais("rmi", name)
    missing = daemon.cais("pull", f"{registry}/ours:2", check=False)
    assert f"manifest for {registry}/ours:2 not found" in missing.stderr
    created = daemon.cais("create", name)
    assert f"Unable to find image '{name}' locally" in created.stderr
    daemon.cais("rm", created.stdout.strip())
    daemon.cais("rmi", name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("pull", f"{REGISTRY}/team/box:none"),
            f"manifest for {REGISTRY}/team/box:none not found: manifest unknown: manifest unknown",
        ),
        (("pull", f"{REGISTRY}/nowhere"), f"manifest for {REGISTRY}/nowhere:latest not found"),
        (("pull", "localhost:1/x"), 'Get "http://localhost:1/v2/": dial tcp: connect: connection'),
        (("push", "missing:1"), "An image does not exist locally with the tag: missing"),
        (("pull", "UPPER"), "invalid reference format: repository name"),
    ],
)
def test_refusals(
    daemon: TestDaemon, registry: str, arguments: tuple[str, ...], message: str
) -> None:
    del registry
    result = daemon.docker(*arguments, check=False)
    assert result.returncode == 1
    assert message in result.stderr


def test_peers_read_what_we_push(daemon: TestDaemon, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/peer:1"
    make_image(daemon, name, b"for skopeo")
    digest = daemon.docker("push", name).stdout.partition("digest: ")[2].split()[0]
    skopeo = [*daemon.enter_namespaces, "skopeo", "--insecure-policy"]
    shown = subprocess.run(
        [*skopeo, "inspect", "--tls-verify=false", f"docker://{name}"],
        capture_output=True,
        check=True,
    )
    assert json.loads(shown.stdout)["Digest"] == digest
    copied = f"{registry}/peer-copy:1"
    subprocess.run(
        [*skopeo, "copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
         f"docker://{name}", f"docker://{copied}"],
        capture_output=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert digest in daemon.docker("pull", copied).stdout
    daemon.docker("rmi", name, copied)
