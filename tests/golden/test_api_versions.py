"""The same engine, seen through old and new API versions; docker-py and bytes on a real socket."""

import copy
import json
from typing import Any

import pytest

from cais.api import versions
from cais.spec.bodies import parse_create_body

CONTAINER = {
    "Id": "c",
    "ImageManifestDescriptor": {"digest": "d"},
    "HostConfig": {"Annotations": {"a": "b"}},
    "NetworkSettings": {"Networks": {"bridge": {"DNSNames": ["x"], "GwPriority": 1}}},
}
IMAGE = {"Id": "i", "Size": 5, "Descriptor": {}, "RepoTags": [], "RepoDigests": []}


def shape(function: Any, document: Any, minor: int) -> Any:
    return function(copy.deepcopy(document), (1, minor))


def test_newest_is_left_as_it_is() -> None:
    assert shape(versions.reshape_container, CONTAINER, 51) == CONTAINER
    assert shape(versions.reshape_image, IMAGE, 51) == IMAGE
    assert shape(versions.reshape_image_summary, IMAGE, 51) == IMAGE


@pytest.mark.parametrize(
    ("minor", "descriptor", "annotations", "names", "priority"),
    [(48, True, True, True, True), (47, False, True, True, False), (46, False, True, True, False),
     (45, False, False, True, False), (44, False, False, True, False),
     (43, False, False, False, False), (24, False, False, False, False)],
)  # fmt: skip
def test_container(
    minor: int, descriptor: bool, annotations: bool, names: bool, priority: bool
) -> None:
    document = shape(versions.reshape_container, CONTAINER, minor)
    bridge = document["NetworkSettings"]["Networks"]["bridge"]
    assert ("ImageManifestDescriptor" in document) is descriptor
    assert ("Annotations" in document["HostConfig"]) is annotations
    assert ("DNSNames" in bridge, "GwPriority" in bridge) == (names, priority)


def test_image() -> None:
    assert "VirtualSize" not in shape(versions.reshape_image, IMAGE, 44)
    assert shape(versions.reshape_image, IMAGE, 43)["VirtualSize"] == 5
    assert shape(versions.reshape_image_summary, IMAGE, 43)["RepoTags"] == []
    old = shape(versions.reshape_image_summary, IMAGE, 42)
    assert (old["RepoTags"], old["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])


@pytest.mark.parametrize(
    ("minor", "annotations", "console", "cgroupns", "ipc"),
    [(44, {"a": "b"}, (1, 2), "", ""), (43, {"a": "b"}, (1, 2), "", ""), (42, None, (1, 2), "", ""),
     (41, None, (0, 0), "", ""), (40, None, (0, 0), "host", ""),
     (39, None, (0, 0), "host", "shareable")],
)  # fmt: skip
def test_create_request(
    minor: int, annotations: Any, console: tuple[int, int], cgroupns: str, ipc: str
) -> None:
    raw = json.dumps(
        {"Image": "i", "HostConfig": {"Annotations": {"a": "b"}, "ConsoleSize": [1, 2]}}
    ).encode()
    host = parse_create_body(versions.reshape_create_request(raw, (1, minor))).host_config
    assert host.annotations == annotations
    assert (host.console_size, host.cgroupns_mode, host.ipc_mode) == (console, cgroupns, ipc)


def test_create_request_without_host_config() -> None:
    raw = versions.reshape_create_request(b'{"Image":"i","HostConfig":null}', (1, 24))
    assert parse_create_body(raw).host_config.ipc_mode == "shareable"


def test_stream_content_types() -> None:
    raw, frames = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
    assert versions.stream_content_type((1, 41), tty=False) == raw
    assert versions.stream_content_type((1, 42), tty=False) == frames
    assert versions.stream_content_type((1, 51), tty=True) == raw


def test_event() -> None:
    event = {"Type": "container", "Action": "die",
             "Actor": {"ID": "c", "Attributes": {"image": "i"}}}  # fmt: skip
    assert versions.reshape_event(event) == {**event, "status": "die", "id": "c", "from": "i"}
    network = {"Type": "network", "Action": "connect", "Actor": {"ID": "n"}}
    assert versions.reshape_event(network) == network


def test_image_config_has_all_its_old_members() -> None:
    image = {**IMAGE, "Config": {"Cmd": ["sh"], "Hostname": "h"}}
    assert shape(versions.reshape_image, image, 50) == image
    config = shape(versions.reshape_image, {**image, "Size": 5}, 49)["Config"]
    assert (config["Cmd"], config["Hostname"]) == (["sh"], "h")
    assert (config["Domainname"], config["Tty"]) == ("", False)


@pytest.mark.parametrize(("minor", "left"), [(48, 2), (47, 1), (43, 0)])
def test_networks_of_a_listed_container(minor: int, left: int) -> None:
    row = shape(versions.reshape_container, CONTAINER, minor)
    assert len(row["NetworkSettings"]["Networks"]["bridge"]) == left
