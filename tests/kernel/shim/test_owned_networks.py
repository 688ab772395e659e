"""Network namespaces that belong to a user namespace, made by the shim."""
# ruff: noqa: ASYNC222, ASYNC240 - what is waited for has ended, or is a file of the kernel's

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cais import errors
from cais.linux import namespaces
from cais.linux.mount import unmount
from cais.shim.client import ShimClient, ensure_shim
from cais.shim.values import NamespaceOwner
from cais.spec.identities import IdentityMaps
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

MAPS = IdentityMaps(((0, 100_000, 1000), (1000, 300_000, 10)), ((0, 200_000, 65_536),))
NS_GET_USERNS = 0xB701


def with_shim(directory: Path, body: Callable[[ShimClient], Awaitable[None]]) -> None:
    async def run() -> None:
        client = await ensure_shim(directory / "data", directory / "run", on_event=lambda _: None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await body(client)
        finally:
            await client.shutdown()
            await client.wait_lost()
            client.close()
            os.waitpid(client.hello.pid, 0)

    isolated(lambda: asyncio.run(run()), timeout_s=2 * PATIENCE_S)


def owner_of(netns_fd: int) -> int:
    user_fd = fcntl.ioctl(netns_fd, NS_GET_USERNS)
    try:
        return os.fstat(user_fd).st_ino
    finally:
        os.close(user_fd)


async def make(client: ShimClient, path: Path, owner: NamespaceOwner | None) -> int:
    """Make one; return the inode of the user namespace it belongs to."""
    netns_fd, netlink_fd = await client.create_netns(path, owner)
    try:
        assert os.fstat(netns_fd).st_ino == path.stat().st_ino
        return owner_of(netns_fd)
    finally:
        os.close(netns_fd)
        os.close(netlink_fd)


def maps_of(pin: Path) -> list[list[int]]:
    """Return the user map of a pinned namespace, as a process in it sees it."""
    read_fd, write_fd = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            fd = os.open(pin, os.O_RDONLY)
            namespaces.join(fd, namespaces.CLONE_NEWUSER)
            os.write(write_fd, Path("/proc/self/uid_map").read_bytes())
        finally:
            os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    with open(read_fd) as lines:
        return [[int(word) for word in line.split()] for line in lines]


def test_a_new_user_namespace_and_one_that_is_there(tmp_path: Path) -> None:
    first, second, plain = (tmp_path / name for name in ("first", "second", "plain"))
    pins = (tmp_path / "first.user", tmp_path / "second.user")

    async def body(client: ShimClient) -> None:
        made = await make(client, first, NamespaceOwner(str(pins[0]), MAPS))
        assert made == pins[0].stat().st_ino != Path("/proc/self/ns/user").stat().st_ino
        assert maps_of(pins[0]) == [[0, 100_000, 1000], [1000, 300_000, 10]]
        again = await make(client, second, NamespaceOwner(str(pins[1]), source=str(pins[0])))
        assert again == made == pins[1].stat().st_ino
        assert first.stat().st_ino != second.stat().st_ino
        assert await make(client, plain, None) == Path("/proc/self/ns/user").stat().st_ino
        for path in (first, second, plain, *pins):
            unmount(str(path))

    with_shim(tmp_path, body)


@pytest.mark.parametrize("fault", ["maps", "taken", "source", "no namespace"])
def test_a_failure_leaves_nothing(tmp_path: Path, fault: str) -> None:
    place = tmp_path / "pins"
    place.mkdir()
    overlapping = IdentityMaps(((0, 0, 10), (5, 100, 10)), ((0, 0, 1),))
    pin = str(place / "net.user")
    owner = {
        "maps": NamespaceOwner(pin, overlapping),
        "taken": NamespaceOwner(str(tmp_path / "taken"), MAPS),
        "source": NamespaceOwner(pin, source=str(tmp_path / "nothing")),
        "no namespace": NamespaceOwner(pin, source="/etc/hostname"),
    }[fault]
    (tmp_path / "taken").write_text("kept")

    async def body(client: ShimClient) -> None:
        home = os.stat(f"/proc/{client.hello.pid}/ns/user").st_ino
        with pytest.raises((errors.InternalError, errors.AlreadyExistsError)):
            await client.create_netns(place / "net", owner)
        assert os.listdir(place) == []
        assert (tmp_path / "taken").read_text() == "kept"
        assert os.stat(f"/proc/{client.hello.pid}/ns/user").st_ino == home
        await make(client, place / "net", NamespaceOwner(pin, MAPS))
        for name in ("net", "net.user"):
            unmount(str(place / name))

    with_shim(tmp_path, body)
