"""What a pull and a push say, message by message, as dockerd 20.10 was heard to say it.

Layers go side by side, so their lines mix: what is compared is what each line says in turn, and
what is said of no layer. Numbers in between, and states that are passed too fast to be seen, come
or do not come.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

import docker
import pytest

from cais.testing.archives import docker_archive, tar_of
from cais.testing.docker_registry import DockerRegistry
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.daemon import TestDaemon

PORT = 5058
DIGEST = r"sha256:[0-9a-f]{64}"
PULLED = (
    "Pulling fs layer( Waiting)?( Downloading)?( Verifying Checksum)? Download complete"
    "( Extracting)? Pull complete"
)
PUSHED = "Preparing( Waiting)?( Pushing)? Pushed"
LAYERS = [
    tar_of({"big": os.urandom(400_000)}),
    *(tar_of({"small": os.urandom(9)}) for _ in range(6)),
]


@pytest.fixture(scope="module")
def registry(daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with DockerRegistry(daemon, tmp_path_factory.mktemp("registry"), port=PORT) as running:
        yield running.name


@pytest.fixture
def client(daemon: TestDaemon) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(base_url=daemon.host, timeout=PATIENCE_S)) as opened:
        yield opened


@pytest.fixture
def image(daemon: TestDaemon, registry: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A repository of the test's own, with a new image under v1 that no registry has."""
    name = f"{registry}/said/{request.node.originalname.removeprefix('test_')}"
    layers = [*LAYERS, tar_of({"own": name.encode()})]
    daemon.docker("load", stdin=docker_archive(f"{name}:v1", layers, Cmd=["/big"]))
    yield name
    found = daemon.docker("images", "-q", "--no-trunc", name).stdout.split()
    daemon.docker("rmi", "-f", *set(found), check=False)


def pull(client: docker.APIClient, name: str, tag: str | None = None, **more: Any) -> list[Any]:
    return list(client.pull(name, tag, stream=True, decode=True, **more))


def push(client: docker.APIClient, name: str, tag: str | None = None) -> list[Any]:
    return list(client.push(name, tag, stream=True, decode=True))


def lines(said: list[Any]) -> dict[str, str]:
    """Return what each layer's line says in turn, in the order in which the lines begin."""
    found: dict[str, list[str]] = {}
    for message in said:
        if "progressDetail" in message and "status" in message:
            states = found.setdefault(message["id"], [])
            if not states or states[-1] != message["status"]:
                states.append(message["status"])
    return {name: " ".join(states) for name, states in found.items()}


def others(said: list[Any]) -> list[Any]:
    return [one for one in said if "progressDetail" not in one or "aux" in one]


def test_a_pull(client: docker.APIClient, image: str) -> None:
    push(client, image, "v1")
    (named,) = client.inspect_image(f"{image}:v1")["RepoDigests"]
    client.remove_image(f"{image}:v1", force=True)
    said = pull(client, image, "v1")
    path = image.partition("/")[2]
    assert others(said) == [
        {"status": f"Pulling from {path}", "id": "v1"},
        {"status": f"Digest: {named.partition('@')[2]}"},
        {"status": f"Status: Downloaded newer image for {image}:v1"},
    ]
    assert len(lines(said)) == len(LAYERS) + 1
    for states in lines(said).values():
        assert re.fullmatch(PULLED, states)
    complete = [one["id"] for one in said if one["status"] == "Pull complete"]
    assert complete == list(lines(said))
    again = pull(client, image, "v1")
    assert [one["status"] for one in again] == [
        f"Pulling from {path}",
        f"Digest: {named.partition('@')[2]}",
        f"Status: Image is up to date for {image}:v1",
    ]
    assert pull(client, named)[0] == {"status": f"Pulling from {path}", "id": named}


def test_a_pull_of_what_is_partly_here(
    daemon: TestDaemon, client: docker.APIClient, image: str
) -> None:
    client.remove_image(f"{image}:v1")
    for tag, more in (("v1", ()), ("v2", (tar_of({"two": b"2"}),))):
        archive = docker_archive(f"{image}:{tag}", [*LAYERS, *more])
        daemon.docker("load", stdin=archive)
        push(client, image, tag)
        client.remove_image(f"{image}:{tag}", force=True)
    pull(client, image, "v1")
    *below, top = lines(pull(client, image, "v2")).values()
    assert below == ["Already exists"] * len(LAYERS)
    assert re.fullmatch(PULLED, top)


def test_a_pull_of_everything(client: docker.APIClient, image: str) -> None:
    client.tag(f"{image}:v1", image, "v2")
    push(client, image)
    for tag in ("v1", "v2"):
        client.remove_image(f"{image}:{tag}", force=True)
    said = others(pull(client, image, all_tags=True))
    assert [one["id"] for one in said if "id" in one] == ["v1", "v2"]
    states = [one["status"] for one in said if one["status"].startswith("Status:")]
    assert states == [f"Status: Downloaded newer image for {image}"]
    assert said[-1] == {"status": states[0]}
    again = pull(client, image, all_tags=True)
    assert again[-1] == {"status": f"Status: Image is up to date for {image}"}


def test_a_push(client: docker.APIClient, image: str) -> None:
    layers = client.inspect_image(f"{image}:v1")["RootFS"]["Layers"]
    said = push(client, image, "v1")
    first, last, aux = others(said)
    assert first == {"status": f"The push refers to repository [{image}]"}
    digest = aux["aux"]["Digest"]
    size = aux["aux"]["Size"]
    assert re.fullmatch(DIGEST, digest)
    assert last == {"status": f"v1: digest: {digest} size: {size}"}
    assert aux == {"progressDetail": {}, "aux": {"Tag": "v1", "Digest": digest, "Size": size}}
    top_first = [layer.partition(":")[2][:12] for layer in reversed(layers)]
    assert list(lines(said)) == top_first
    assert re.fullmatch(PUSHED, lines(said)[top_first[0]])
    again = push(client, image, "v1")
    for states in lines(again).values():
        assert re.fullmatch("Preparing( Waiting)? Layer already exists", states)
    client.tag(f"{image}:v1", f"{image}-mounted", "v1")
    source = image.partition("/")[2]
    mounted = lines(push(client, f"{image}-mounted", "v1"))
    assert re.fullmatch(f"Preparing( Waiting)? Mounted from {source}", mounted[top_first[0]])


def test_numbers(client: docker.APIClient, image: str) -> None:
    """The bar as Docker draws it: 50 places and one for the head of the arrow."""
    said = push(client, image, "v1")
    client.remove_image(f"{image}:v1", force=True)
    said += pull(client, image, "v1")
    counted = [one for one in said if one.get("progressDetail")]
    assert {one["status"] for one in counted} <= {"Pushing", "Downloading", "Extracting"}
    assert counted
    for one in counted:
        current, total = one["progressDetail"]["current"], one["progressDetail"].get("total", 0)
        if 0 < current <= total:
            drawn = re.fullmatch(r"\[(=*)>( *)\] +[\d.]+[kM]?B/[\d.]+[kM]?B", one["progress"])
            assert drawn, one
            assert (len(drawn[1]), len(drawn[1] + drawn[2])) == (current * 50 // total, 50)


@pytest.mark.parametrize("tag", ["v9", None])
def test_a_push_of_nothing(client: docker.APIClient, registry: str, tag: str | None) -> None:
    name = f"{registry}/nothing"
    text = f"An image does not exist locally with the tag: {name}"
    assert push(client, name, tag) == [
        {"status": f"The push refers to repository [{name}]"},
        {"errorDetail": {"message": text}, "error": text},
    ]
