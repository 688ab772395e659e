"""SECURITY.md F-4 and F-5: a registry server that is killed, or whose power is cut, at any moment.

A client pushes to a server in the same process, which is stopped before calls that change the disk
(``interruptions``) and ends there. What the client was told before is so when a server is there
again; sessions of uploads have ended, with their bytes; nothing is left that no row names; and the
same again works.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from registry_kit import CONFIG, FIRST, LAYERS, SECOND, Client

from cais.registry.server.catalog import Catalog
from cais.registry.server.serving import RegistryOptions, RunningRegistry
from cais.spec.digest import digest_of
from cais.spec.image import OCI_MANIFEST
from cais.testing.interruptions import (
    cut_power,
    interrupt,
    make_disk,
    moments,
    mounted_disk,
    reap_orphans,
)
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

DISK_BYTES = 32 << 20
MOMENTS = 12


def push(client: Client, tell: Callable[[str], object]) -> None:
    """Push, tag, move, mount and delete; tell what was acknowledged, as soon as it is."""
    for content in (CONFIG, LAYERS[0]):
        target = f"/v2/team/box/blobs/uploads/?digest={digest_of(content)}"
        client.expect(201, "POST", target, content)
        tell(f"blob {digest_of(content)}")
    client.expect(201, "PUT", "/v2/team/box/manifests/v1", FIRST, OCI_MANIFEST)
    tell("v1 first")
    place = client.expect(202, "POST", "/v2/team/box/blobs/uploads/")
    tell(f"upload {place}")
    for start in range(0, len(LAYERS[1]), 100_000):
        client.expect(202, "PATCH", place, LAYERS[1][start : start + 100_000])
    client.expect(201, "PUT", f"{place}?digest={digest_of(LAYERS[1])}")
    tell(f"blob {digest_of(LAYERS[1])}")
    client.expect(201, "PUT", "/v2/team/box/manifests/v1", SECOND, OCI_MANIFEST)
    tell("v1 second")
    client.expect(202, "DELETE", f"/v2/team/box/manifests/{digest_of(FIRST)}")
    tell("first is gone")
    target = f"/v2/team/crate/blobs/uploads/?mount={digest_of(LAYERS[0])}&from=team/box"
    client.expect(201, "POST", target)
    tell("mounted")


def in_server(root: Path, told_fd: int) -> Callable[[], None]:
    def run() -> None:
        with RunningRegistry(RegistryOptions(root)) as registry:
            push(Client(registry.address), lambda text: os.write(told_fd, f"{text}\n".encode()))
            os._exit(0)  # nothing is closed: a process that is killed does not either

    return run


def assert_kept(root: Path, told: list[str]) -> None:
    """What was told is so, with a new server; and everything else it has is somebody's."""
    with RunningRegistry(RegistryOptions(root)) as registry:
        client = Client(registry.address)
        for line in told:
            word, _, detail = line.partition(" ")
            if word == "blob":
                status, _, body = client.ask("GET", f"/v2/team/box/blobs/{detail}")
                assert (status, digest_of(body)) == (200, detail)
            elif word == "upload":
                assert_forgotten(client, detail)
        status, _, body = client.ask("GET", "/v2/team/box/manifests/v1")
        if "v1 second" in told:
            assert body == SECOND
        elif "v1 first" in told:
            assert body in (FIRST, SECOND)
        else:
            assert status == 404 or body == FIRST
        if "first is gone" in told:
            assert client.ask("GET", f"/v2/team/box/manifests/{digest_of(FIRST)}")[0] == 404
        if "mounted" in told:
            assert client.ask("GET", f"/v2/team/crate/blobs/{digest_of(LAYERS[0])}")[0] == 200
        assert_nothing_else(root)
        push(client, lambda _: None)
        assert client.ask("GET", "/v2/team/box/manifests/v1")[2] == SECOND
    with RunningRegistry(RegistryOptions(root)):  # collects what was deleted
        assert_nothing_else(root)


def assert_forgotten(client: Client, place: str) -> None:
    """An upload that was under way: its client learns that it has to begin again."""
    for method in ("GET", "PATCH", "DELETE"):
        status, _, body = client.ask(method, place)
        assert (status, json.loads(body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
    target = f"{place}?digest={digest_of(LAYERS[1])}"
    assert client.ask("PUT", target)[0] == 404


def assert_nothing_else(root: Path) -> None:
    catalog = Catalog.open(root / "registry.db")
    live = catalog.live()
    catalog.close()
    assert {f"sha256:{name}" for name in os.listdir(root / "content/blobs/sha256")} <= live
    assert not os.listdir(root / "content/ingest")


def attempt(root: Path, moment: int, at_moment: Callable[[], None]) -> tuple[int, list[str]]:
    """Interrupt a server; return how many calls there were, and what its client was told."""
    read_fd, told_fd = os.pipe()
    count = interrupt(in_server(root, told_fd), moment, at_moment)
    os.close(told_fd)
    with open(read_fd) as told:
        return count, told.read().splitlines()


def test_a_killed_registry(tmp_path: Path) -> None:
    def run(moment: int) -> int:
        root = tmp_path / str(moment)
        count, told = attempt(root, moment, lambda: None)
        assert_kept(root, told)
        return count

    for moment in moments(run(0), MOMENTS):
        run(moment)


def test_a_power_cut_under_a_registry(tmp_path: Path) -> None:
    template, disk, mounted = (tmp_path / each for each in ("template", "disk", "mounted"))
    mounted.mkdir()
    make_disk(template, DISK_BYTES)
    cut = functools.partial(cut_power, mounted)

    def run(moment: int) -> int:
        subprocess.run(["cp", "--sparse=always", template, disk], check=True)
        with mounted_disk(disk, mounted):
            count, told = attempt(mounted / "root", moment, cut)
            if moment == 0:
                cut()  # all of it was done, and told
                assert told[-1] == "mounted"
        with mounted_disk(disk, mounted):
            assert_kept(mounted / "root", told)
        return count

    def body() -> None:
        for moment in moments(run(0), MOMENTS):
            run(moment)
        reap_orphans()

    isolated(body, net=False, timeout_s=500)
