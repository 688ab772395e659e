"""B1 to B3: docker cp from and into containers that exchange what is on the way."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import docker.errors
import pytest
from docker.types import Mount
from host_sentinel import photograph
from security_daemon import connected

from cais.testing.archives import busybox_rootfs, docker_archive, tar_of
from cais.testing.raw_tar import Member, tar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker.models.containers import Container

    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ROUNDS = 80

FLIP = "mkdir /w; while :; do rm -rf /w/d; ln -s / /w/d; rm -rf /w/d; mkdir /w/d; done 2>/dev/null"
PLANT = """
    mkdir /w
    while :; do for n in /w/n*; do rm $n && ln -s {target} $n; done; done 2>/dev/null
"""


@pytest.fixture
def attacker(
    daemon: TestDaemon, sentinel: Path, request: pytest.FixtureRequest
) -> Iterator[Container]:
    """A container that runs the script the test asks for."""
    script = request.param.format(target=sentinel / "file")
    with connected(daemon) as client:
        container = client.containers.run("busybox", ["sh", "-c", script], detach=True)
        try:
            container.exec_run(["sh", "-c", "until test -e /w; do :; done"])
            yield container
        finally:
            container.remove(force=True)


@pytest.mark.parametrize("attacker", [FLIP], indirect=True, ids=["flip"])
def test_cve_2018_15664_nothing_of_the_host_is_read(attacker: Container, sentinel: Path) -> None:
    seen = set()
    for _ in range(ROUNDS):
        try:
            chunks, _ = attacker.get_archive(f"/w/d{sentinel}/file")
            seen.add(b"mine" in b"".join(chunks))
        except docker.errors.NotFound:
            seen.add(None)
    assert seen == {None}
    for _ in range(ROUNDS // 3):
        with tarfile.open(fileobj=io.BytesIO(whole(attacker, "/w"))) as archive:
            assert not [name for name in archive.getnames() if name.count("/") > 1]


def whole(container: Container, path: str) -> bytes:
    chunks, _ = container.get_archive(path)
    return b"".join(chunks)


@pytest.mark.parametrize("attacker", [FLIP], indirect=True, ids=["flip"])
def test_cve_2018_15664_nothing_of_the_host_is_written(attacker: Container, sentinel: Path) -> None:
    before = photograph(sentinel)
    below = str(sentinel)[1:]
    content = tar_of({f"{below}/file": b"theirs", f"{below}/new": b"theirs"})
    assert {put(attacker, "/w/d", content) for _ in range(ROUNDS)} <= {200, 400, 404}
    assert photograph(sentinel) == before


def put(container: Container, path: str, content: bytes) -> int:
    try:
        return 200 if container.put_archive(path, content) else 0
    except docker.errors.APIError as refused:
        return int(refused.response.status_code)


@pytest.mark.parametrize("attacker", [PLANT], indirect=True, ids=["plant"])
def test_cve_2021_41089_no_attribute_of_the_host_s_is_set(
    attacker: Container, sentinel: Path
) -> None:
    before = photograph(sentinel)
    members = [
        Member(f"n{number}", kind=kind, link="x" if kind == b"2" else "", mode=0o4777, uid=7)
        for number, kind in enumerate((b"6", b"0", b"2", b"5") * 40)
    ]
    content = tar([Member(each.name, kind=each.kind, link=each.link, mode=each.mode, uid=each.uid)
                   for each in members])  # fmt: skip
    assert {put(attacker, "/w", content) for _ in range(ROUNDS // 10)} <= {200, 400}
    assert photograph(sentinel) == before


def test_links_of_the_archive_itself_lead_nowhere(daemon: TestDaemon, sentinel: Path) -> None:
    """B3: a link, then a file, a directory and a hard link of its name."""
    before = photograph(sentinel)
    content = tar([
        Member("l", kind=b"2", link=str(sentinel / "file")), Member("h", kind=b"1", link="l"),
        Member("l", b"theirs", mode=0o4777), Member("h", b"theirs", mode=0o4777),
        Member("d", kind=b"2", link=str(sentinel)), Member("d/file", b"theirs"),
        Member("d", kind=b"5", mode=0o777), Member("d/ptmx", b"theirs", mode=0o777),
    ])  # fmt: skip
    with connected(daemon) as client:
        container = client.containers.create("busybox")
        try:
            assert container.put_archive("/tmp", content)
            with tarfile.open(fileobj=io.BytesIO(whole(container, "/tmp/l"))) as archive:
                assert archive.getmember("l").mode == 0o4777
        finally:
            container.remove()
    assert photograph(sentinel) == before


def test_cve_2026_41568_places_of_volumes_stay_inside(daemon: TestDaemon, sentinel: Path) -> None:
    """B2: the places of volumes are links of the image, to the host's directory and to its own."""
    before = photograph(sentinel)
    links: dict[str, bytes | str | None] = {"evil": str(sentinel), "run": None, "var/run": "/run"}
    archive = docker_archive("linked:1", [busybox_rootfs(), tar_of(links)], Cmd=["sh"])
    with connected(daemon) as client:
        client.images.load(archive)
        mounts_before = daemon.snapshot()["mounts"]
        volumes = [Mount(path, None) for path in ("/evil/sub", "/var/run/app")]
        container = client.containers.create("linked:1", ["cat", "/run/app/given"], mounts=volumes)
        try:
            for path in ("/evil/sub", "/var/run/app"):
                assert container.put_archive(path, tar_of({"given": b"here\n"}))
            assert daemon.snapshot()["mounts"] <= mounts_before
            container.start()
            assert container.wait()["StatusCode"] == 0
            assert container.logs() == b"here\n"
        finally:
            container.remove(v=True)
            client.images.remove("linked:1")
    assert photograph(sentinel) == before
