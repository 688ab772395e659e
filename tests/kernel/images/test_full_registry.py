"""SECURITY.md F-7 and F-8: a registry without a free block, or without a free inode.

Pushes are refused and leave nothing, what is there is served and can be deleted, and with room all
of it works again without a restart.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from registry_kit import CONFIG, FIRST, LAYERS, SECOND, Client

from cais.registry.server.serving import RegistryOptions, RunningRegistry
from cais.spec.digest import digest_of
from cais.spec.image import OCI_MANIFEST
from cais.testing.interruptions import make_disk, mounted_disk
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_SPACE = "no space left on device"
UPLOADS = "/v2/team/box/blobs/uploads/"


def use_up_blocks(place: Path) -> None:
    for size in (1 << 20, 1 << 16, 4096):
        with (place / f"ballast-{size}").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert os.statvfs(place).f_bavail == 0


def use_up_inodes(place: Path) -> None:
    number = 0
    try:
        while True:
            (place / f"ballast-{number}").touch()
            number += 1
    except OSError:
        assert os.statvfs(place).f_favail == 0


def push(client: Client) -> None:
    for content in (CONFIG, *LAYERS):
        client.expect(201, "POST", f"{UPLOADS}?digest={digest_of(content)}", content)
    for tag, content in (("v1", FIRST), ("v2", SECOND)):
        client.expect(201, "PUT", f"/v2/team/box/manifests/{tag}", content, OCI_MANIFEST)


def refuse(client: Client, method: str, target: str, *words: object) -> None:
    status, _, body = client.ask(method, target, *words)  # type: ignore[arg-type]
    assert (status, json.loads(body)["errors"][0]["code"]) == (507, "UNAVAILABLE")
    assert NO_SPACE in json.loads(body)["errors"][0]["message"]


def refuse_chunks(client: Client) -> None:
    """A session may begin, where it takes no inode; it is over when its bytes find no room."""
    status, place, _ = client.ask("POST", UPLOADS)
    if status != 507:
        refuse(client, "PATCH", place, LAYERS[1])
        assert client.ask("GET", place)[0] == 404


@pytest.mark.parametrize(
    ("use_up", "options"),
    [(use_up_blocks, ["-m", "0", "-b", "4096"]), (use_up_inodes, ["-N", "128"])],
)
def test_a_registry_on_a_full_disk(
    tmp_path: Path, use_up: Callable[[Path], None], options: list[str]
) -> None:
    disk, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    make_disk(disk, 16 << 20, *options)
    other = os.urandom(200_000)

    def body() -> None:
        root = place / "root"
        with mounted_disk(disk, place), RunningRegistry(RegistryOptions(root, grace_s=0)) as served:
            client = Client(served.address)
            push(client)
            use_up(place)
            for content in (other, LAYERS[1]):
                refuse(client, "POST", f"{UPLOADS}?digest={digest_of(content)}", content)
            refuse_chunks(client)
            refuse(client, "PUT", "/v2/team/box/manifests/v3", SECOND, OCI_MANIFEST)
            assert not os.listdir(root / "content/ingest")
            for content in LAYERS:
                status, _, body = client.ask("GET", f"/v2/team/box/blobs/{digest_of(content)}")
                assert (status, body) == (200, content)
            client.expect(202, "DELETE", f"/v2/team/box/manifests/{digest_of(SECOND)}")
            assert client.ask("GET", "/v2/team/box/manifests/v2")[0] == 404
            for path in place.glob("ballast-*"):
                path.unlink()
            client.expect(201, "POST", f"{UPLOADS}?digest={digest_of(other)}", other)
            push(client)
            assert client.ask("GET", "/v2/team/box/manifests/v2")[2] == SECOND

    isolated(body, net=False, timeout_s=200)
