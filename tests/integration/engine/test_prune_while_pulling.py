"""SECURITY.md F-28 and F-29: prunes beside pulls and loads, and a hundred pulls of which one stays.

What is on its way is nobody's prey; what nobody wants any more goes; one download serves them all.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from cais.client import Address, Client
from cais.testing import image_store
from cais.testing.archives import docker_archive, tar_of
from cais.testing.docker_registry import DockerRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

ROUNDS = 4
NAMELESS = image_store.docker_archive([tar_of({"nameless": b"n"})], None)
CLIENTS = 100


@pytest.fixture
def daemon(fresh_daemon: Callable[..., TestDaemon]) -> TestDaemon:
    return fresh_daemon()


@pytest.fixture
def registry(daemon: TestDaemon, tmp_path: Path) -> Iterator[str]:
    with DockerRegistry(daemon, tmp_path) as running:
        yield running.name


def archive(name: str, *contents: bytes) -> bytes:
    layers = [tar_of({f"file{index}": content}) for index, content in enumerate(contents)]
    return docker_archive(name, layers, Cmd=["/file0"])


def published(daemon: TestDaemon, name: str) -> str:
    """Put an image into the registry, and only there; return its id."""
    daemon.docker("load", stdin=archive(name, *(bytes([n]) * 400_000 for n in range(1, 5))))
    found = daemon.docker("images", "--no-trunc", "-q", name).stdout.strip()
    daemon.docker("push", name)
    daemon.docker("rmi", name)
    return found


@contextlib.contextmanager
def repeating(*actions: Callable[[], object]) -> Iterator[list[int]]:
    """Do each action again and again beside the block; none may fail."""
    done, counts = threading.Event(), [0] * len(actions)

    def repeat(index: int) -> None:
        while not done.is_set():
            actions[index]()
            counts[index] += 1

    with ThreadPoolExecutor(len(actions)) as pool:
        running = [pool.submit(repeat, index) for index in range(len(actions))]
        try:
            yield counts
        finally:
            done.set()
            for each in running:
                each.result()


def test_prunes_take_nothing_that_is_on_its_way(daemon: TestDaemon, registry: str) -> None:
    name = f"{registry}/team/box:v1"
    image_id = published(daemon, name)
    loaded = archive("loaded:latest", b"loaded" * 100_000, b"more" * 50_000)
    client = Client(Address.parse(daemon.host))
    turn = threading.Lock()  # prunes of containers and networks refuse each other, as with Docker

    def prune() -> None:
        daemon.docker("load", stdin=NAMELESS)  # so that there is something to collect
        # Not of containers: one that is created and not started yet is theirs, as with Docker.
        with turn:
            client.post("/networks/prune").close()
        client.post("/volumes/prune").close()
        assert client.post("/images/prune").json()["SpaceReclaimed"]
        client.post("/build/prune").close()

    with repeating(prune, lambda: client.get("/system/df").close()) as counts:
        for _ in range(ROUNDS):
            daemon.docker("pull", name)
            daemon.docker("load", stdin=loaded)
            shown = daemon.docker("images", "--no-trunc", "--format", "{{.ID}}").stdout.split()
            assert image_id in shown
            assert daemon.docker("create", name).returncode == 0
            daemon.docker("run", "--rm", "busybox", "true")
            with turn:
                daemon.docker("container", "prune", "-f")
            daemon.docker("rmi", "-f", name, "loaded")
    assert all(counts)
    daemon.docker("rmi", "busybox")
    assert client.get("/system/df").json()["LayersSize"] == 0


def test_prunes_of_all_that_is_unused_break_no_pull(daemon: TestDaemon, registry: str) -> None:
    """What is here is theirs at once, by tag or by digest; what is still coming is not."""
    name = f"{registry}/team/box:v1"
    published(daemon, name)
    daemon.docker("pull", name)
    by_digest = daemon.docker("inspect", "-f", "{{index .RepoDigests 0}}", name).stdout.strip()
    client = Client(Address.parse(daemon.host))
    query = {"filters": json.dumps({"dangling": ["false"]})}

    with repeating(lambda: client.post("/images/prune", query).close()) as counts:
        for _ in range(4 * ROUNDS):
            daemon.docker("pull", by_digest)
            daemon.docker("pull", name)
    assert all(counts)
    client.post("/images/prune", query).close()
    assert client.get("/system/df").json()["LayersSize"] == 0


def test_an_image_removed_while_it_is_pushed_arrives(daemon: TestDaemon, registry: str) -> None:
    name = f"{registry}/team/box:v1"
    client = Client(Address.parse(daemon.host))
    for number in range(ROUNDS):
        daemon.docker("load", stdin=archive(name, bytes([number]) * 400_000, b"more"))
        with client.post(f"/images/{registry}/team/box/push", {"tag": "v1"}) as answer:
            said = answer.documents()
            assert any(message.get("status") == "Preparing" for message in said)
            daemon.docker("rmi", name)
            assert "aux" in list(said)[-1]
        daemon.docker("pull", name)
        daemon.docker("rmi", name)
    daemon.docker("rmi", "busybox")
    assert client.get("/system/df").json()["LayersSize"] == 0


def test_a_hundred_pulls_of_which_one_stays(daemon: TestDaemon, registry: str) -> None:
    name = f"{registry}/team/box:v1"
    image_id = published(daemon, name)
    begun = threading.Barrier(CLIENTS, timeout=100)

    def pull(number: int) -> list[dict[str, Any]]:
        with begin_pull(daemon, name) as answer:
            assert answer.status == 200
            begun.wait()
            if number:
                return []  # and hang up
            return [json.loads(line) for line in answer.read().splitlines()]

    with ThreadPoolExecutor(CLIENTS) as pool:
        said, *_ = pool.map(pull, range(CLIENTS))
    assert not [line for line in said if "error" in line]
    shown = daemon.docker("images", "--no-trunc", "-q", name).stdout.split()
    assert shown == [image_id]
    daemon.docker("rmi", name)
    daemon.docker("pull", name)  # no lock was left
    daemon.docker("rmi", name, "busybox")
    assert Client(Address.parse(daemon.host)).get("/system/df").json()["LayersSize"] == 0
    assert not list((daemon.data_root / "content/ingest").iterdir())


@contextlib.contextmanager
def begin_pull(daemon: TestDaemon, name: str) -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as line:
        line.settimeout(100)
        line.connect(str(daemon.socket_path))
        target = f"/images/create?fromImage={quote(name, safe='')}"
        line.sendall(f"POST {target} HTTP/1.1\r\nHost: cais\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(line)
        answer.begin()
        with contextlib.closing(answer):
            yield answer
