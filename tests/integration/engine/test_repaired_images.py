"""An image with damaged blobs, or without them after a repair, becomes whole by a pull (F-15)."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from cais.testing.archives import busybox_rootfs, docker_archive, tar_of
from cais.testing.daemon import TestDaemon
from cais.testing.docker_registry import DockerRegistry
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT = 5067
NAME = f"localhost:{PORT}/mended/box:1"
LAYERS = [busybox_rootfs(), tar_of({"dir/file": b"content" * 5000})]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDaemon]:
    """One with an image that was pulled, and a container of it."""
    with (
        tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as short,
        TestDaemon(Path(short)) as started,
        DockerRegistry(started, tmp_path_factory.mktemp("registry"), port=PORT),
    ):
        started.docker("load", stdin=docker_archive(NAME, LAYERS, Cmd=["cat", "/dir/file"]))
        started.docker("push", NAME)
        started.docker("rmi", NAME)
        started.docker("pull", NAME)
        started.docker("create", "--name", "kept", NAME)
        yield started


def check(daemon: TestDaemon, *options: str) -> tuple[int, str]:
    command = ("--data-root", str(daemon.data_root), "system", "check", *options)
    done = daemon.cais(*command, check=False, timeout_s=120)
    return done.returncode, done.stdout + done.stderr


def by_docker(daemon: TestDaemon) -> None:
    assert "Status: Image is up to date" in daemon.docker("pull", NAME).stdout


def by_digest(daemon: TestDaemon) -> None:
    shown = daemon.docker("image", "inspect", "-f", "{{index .RepoDigests 0}}", NAME).stdout
    daemon.docker("pull", shown.strip())


def by_docker_py(daemon: TestDaemon) -> None:
    with contextlib.closing(docker.APIClient(base_url=daemon.host, timeout=PATIENCE_S)) as client:
        client.pull(NAME)


def parts(daemon: TestDaemon) -> dict[str, str]:
    """Return the digests of the image's blobs by what they are."""
    (document,) = json.loads(daemon.docker("image", "inspect", NAME).stdout)
    (manifest,) = (named.partition("@")[2] for named in document["RepoDigests"])
    content = (daemon.data_root / "content/blobs/sha256" / manifest.partition(":")[2]).read_bytes()
    layers = json.loads(content)["layers"]
    return {
        "configuration": document["Id"],
        "manifest": manifest,
        "lowest layer": layers[0]["digest"],
        "upper layer": layers[1]["digest"],
    }


def change(daemon: TestDaemon, digest: str, damage: Callable[[bytes], bytes]) -> None:
    path = daemon.data_root / "content/blobs/sha256" / digest.partition(":")[2]
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))


def assert_whole(daemon: TestDaemon) -> None:
    """The image and a container made of it run, and nothing is left for a check to find."""
    assert daemon.docker("run", "--rm", "--network", "none", NAME).stdout == "content" * 5000
    assert daemon.docker("start", "-a", "kept").stdout == "content" * 5000
    assert daemon.docker("save", NAME).stdout
    daemon.stop()
    assert check(daemon) == (0, f"{daemon.data_root}: no problems\n")
    daemon.start()


@pytest.mark.parametrize(
    ("damaged", "damage"),
    [
        ("configuration", lambda content: bytes([content[0] ^ 1]) + content[1:]),
        ("manifest", lambda content: content[:-1] + b"x"),
        ("upper layer", lambda content: content[:-1]),
    ],
)
def test_a_pull_brings_back_what_is_damaged(
    daemon: TestDaemon, damaged: str, damage: Callable[[bytes], bytes]
) -> None:
    """Nobody has to find and repair it first: the message says to pull again."""
    digests = parts(daemon)
    daemon.stop()
    change(daemon, digests[damaged], damage)
    daemon.start()
    by_docker(daemon)
    assert parts(daemon) == digests
    assert_whole(daemon)


@pytest.mark.parametrize(
    ("damaged", "pull"),
    [
        (["configuration", "manifest"], by_docker),
        (["lowest layer"], by_digest),
        (["configuration", "manifest", "lowest layer", "upper layer"], by_docker_py),
    ],
)
def test_a_pull_brings_back_what_a_repair_put_aside(
    daemon: TestDaemon, damaged: list[str], pull: Callable[[TestDaemon], None]
) -> None:
    digests = parts(daemon)
    daemon.stop()
    for part in damaged:
        change(daemon, digests[part], lambda content: content[::-1])
    status, said = check(daemon, "--repair")
    assert status == 1
    for part in damaged:
        assert f"lacks blob {digests[part]}" in said
    daemon.start()
    pull(daemon)
    assert parts(daemon) == digests
    assert_whole(daemon)
