"""Kernel tests of the shim as it is shipped: started sealed, over the real runtime."""
# ruff: noqa: ASYNC222, ASYNC230 - what is waited for has been killed or says so at once

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cais import errors
from cais.linux import memfd, namespaces
from cais.runtime.launch import LaunchError
from cais.shim import protocol
from cais.shim.client import ShimClient, ensure_shim
from cais.shim.values import ExitEvent, LogTarget, OomEvent, ShimEvent
from cais.testing.bundles import Bundle
from cais.testing.isolation import cgroups_named, children, isolated
from cais.testing.shims import parse_frames, read_all
from cais.testing.waiting import PATIENCE_S

# An older kernel tells how a process ended to nobody but its parent.
TELLS_EXITS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)


class Engine:
    """What the tests need of an engine: a client, its events, one bundle."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: asyncio.Queue[ShimEvent] = asyncio.Queue()
        self.client: ShimClient
        self.bundle = Bundle(root / "bundle", "shim")
        self.log = root / "box.log"

    async def connect(self) -> ShimClient:
        self.client = await ensure_shim(
            self.root / "data",
            self.root / "run",
            on_event=self.events.put_nowait,
            timeout_s=PATIENCE_S,
        )
        return self.client

    async def start(self, *args: str, **options: Any) -> int:
        self.bundle.process["args"] = list(args)
        self.bundle.process["terminal"] = options.get("tty", False)
        self.bundle.save()
        fields = {"tty": False, "open_stdin": False, "stdin_once": False} | options
        started = await self.client.start(
            self.bundle.id, bundle=self.bundle.path, log=LogTarget(str(self.log)), **fields
        )
        return started.pid

    async def exec(self, exec_id: str, *args: str, **options: Any) -> int:
        document = self.bundle.path / f"exec-{exec_id}.json"
        terminal = options.get("tty", False)
        process = {**self.bundle.process, "args": list(args), "terminal": terminal}
        document.write_text(json.dumps({"process": process}))
        fields = {"tty": False, "open_stdin": False} | options
        started = await self.client.exec(self.bundle.id, exec_id, document=document, **fields)
        return started.pid

    async def attach(self, exec_id: str | None = None, *, tty: bool = False) -> socket.socket:
        return await self.client.attach(
            self.bundle.id, exec_id, stdin=True, stdout=True, stderr=True, tty=tty
        )

    async def exited(self, exec_id: str | None = None) -> ExitEvent:
        while True:
            event = await asyncio.wait_for(self.events.get(), PATIENCE_S)
            if isinstance(event, ExitEvent) and event.exec_id == exec_id:
                await self.client.ack([event.exit_seq])
                return event

    def logged(self) -> list[str]:
        return [json.loads(line)["log"] for line in self.log.read_bytes().splitlines()]


@contextlib.asynccontextmanager
async def engine(root: Path) -> AsyncIterator[Engine]:
    """An engine with a shim of its own, which must have reported no fault; gone at the end."""
    made = Engine(root)
    await made.connect()
    try:
        yield made
    finally:
        with contextlib.suppress(errors.NotFoundError):
            await made.client.kill(made.bundle.id, signal.SIGKILL)
            await made.exited()
        await end_shim(made.client)
        assert "Traceback" not in (root / "run/shim.log").read_text()
        assert not cgroups_named(made.bundle.id)


async def end_shim(client: ShimClient) -> None:
    await client.shutdown()
    await client.wait_lost()
    client.close()
    os.waitpid(client.hello.pid, 0)  # it came back to this process, a subreaper


def with_engine(path: Path, body: Callable[[Engine], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), engine(path) as made:
            await body(made)

    isolated(lambda: asyncio.run(run()), timeout_s=100, **options)


def descriptors(directory: Path) -> dict[str, str]:
    """Return what each descriptor is, as far as it stays: the shim makes a spare meanwhile."""
    found = {}
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found[name] = os.readlink(directory / name)
    return found


def test_the_shim_is_sealed_detached_and_holds_nothing_of_its_starter(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        proc = Path(f"/proc/{engine.client.hello.pid}")
        program_fd = os.open(proc / "exe", os.O_RDONLY)
        assert memfd.is_sealed(program_fd)
        os.close(program_fd)
        assert (proc / "comm").read_text() == "cais-shim\n"
        assert os.readlink(proc / "cwd") == "/"
        assert os.getsid(engine.client.hello.pid) == engine.client.hello.pid
        fds = descriptors(proc / "fd")
        assert fds["0"] == fds["1"] == "/dev/null"
        assert fds["2"] == str(engine.root / "run/shim.log")
        known = ("/dev/null", "anon_inode:", "socket:", "pipe:", "net:", str(engine.root))
        assert [link for link in fds.values() if not link.startswith(known)] == []
        assert len(fds) <= 16

    os.environ["CAIS_TEST_SECRET"] = "x"
    leak_fd = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak_fd, True)
    try:
        with_engine(tmp_path, body)
    finally:
        os.close(leak_fd)


def test_a_container_from_start_to_exit(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        attached = await engine.attach()
        script = "echo $$ $(hostname); cat; echo err >&2; exit 3"
        await engine.start("sh", "-c", script, open_stdin=True, stdin_once=True)
        attached.send(b"input\n")
        attached.shutdown(socket.SHUT_WR)
        frames = parse_frames(await read_all(attached))
        assert b"".join(part for number, part in frames if number == 1) == b"1 box\ninput\n"
        assert [part for number, part in frames if number == 2] == [b"err\n"]
        ended = await engine.exited()
        assert (ended.code, ended.oom_killed) == (3, False)
        assert sorted(engine.logged()) == ["1 box\n", "err\n", "input\n"]

    with_engine(tmp_path, body)


def test_exec_with_and_without_a_terminal_dies_with_its_container(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        await engine.start("sleep", "100")
        attached = await engine.attach("one")
        await engine.exec("one", "sh", "-c", "hostname; exit 9")
        assert parse_frames(await read_all(attached)) == [(1, b"box\n")]
        assert (await engine.exited("one")).code == 9
        attached = await engine.attach("two", tty=True)
        await engine.exec("two", "sh", "-c", "stty size; sleep 100", tty=True, size=(33, 44))
        said = b""
        while not said.endswith(b"\n"):
            said += await asyncio.get_running_loop().sock_recv(attached, 100) or b" (its end)\n"
        assert said == b"33 44\r\n"
        await engine.client.kill(engine.bundle.id, signal.SIGKILL)
        assert (await engine.exited("two")).code == 137
        assert (await engine.exited()).code == 137
        await read_all(attached)

    with_engine(tmp_path, body)


def test_pause_refuses_exec_and_resume_continues(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        await engine.start("sleep", "100")
        await engine.client.pause(engine.bundle.id)
        with pytest.raises(errors.ConflictError, match="paused"):
            await engine.exec("one", "true")
        await engine.client.resume(engine.bundle.id)
        await engine.client.update(engine.bundle.id, {"pids": {"limit": 55}})
        await engine.exec("one", "true")
        assert (await engine.exited("one")).code == 0

    with_engine(tmp_path, body)


def test_an_unknown_command_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        attached = await engine.attach()
        with pytest.raises(LaunchError, match="no-such-command") as failed:
            await engine.start("no-such-command")
        assert failed.value.kind == "not-found"
        assert await read_all(attached) == b""

    with_engine(tmp_path, body)


def test_an_out_of_memory_kill_is_told_at_once_and_with_the_exit(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        limit = 16 << 20
        engine.bundle.linux["resources"] = {"memory": {"limit": limit, "swap": limit}}
        hungry = "x=$(tr '\\0' x < /dev/zero | head -c 60000000); echo survived"
        await engine.start("sh", "-c", hungry)
        event = await asyncio.wait_for(engine.events.get(), PATIENCE_S)
        assert isinstance(event, OomEvent)
        assert event.id == engine.bundle.id
        ended = await engine.exited()
        assert ended.oom_killed

    with_engine(tmp_path, body)


def test_output_of_programs_that_fail_at_once_is_never_lost(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        for number in range(30):
            attached = await engine.attach()
            await engine.start("sh", "-c", f"echo {number}; exit 1")
            frames = parse_frames(await read_all(attached))
            assert frames == [(1, b"%d\n" % number)]
            assert (await engine.exited()).code == 1
        assert engine.logged() == [f"{number}\n" for number in range(30)]

    with_engine(tmp_path, body)


def test_network_namespaces_are_pinned_and_configurable_from_outside(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        path = tmp_path / "netns"
        home = os.stat(f"/proc/{engine.client.hello.pid}/ns/net").st_ino
        netns_fd, netlink_fd = await engine.client.create_netns(path)
        assert os.fstat(netns_fd).st_ino == os.stat(path).st_ino != home
        with socket.socket(fileno=netlink_fd) as netlink:
            assert (netlink.family, netlink.type) == (socket.AF_NETLINK, socket.SOCK_RAW)
            assert links(netlink) == ["lo"]
        with socket.socket(fileno=await engine.client.open_netlink(path)) as netlink:
            assert links(netlink) == ["lo"]
        assert os.stat(f"/proc/{engine.client.hello.pid}/ns/net").st_ino == home
        with pytest.raises(errors.AlreadyExistsError):
            await engine.client.create_netns(path)
        with pytest.raises(errors.NotFoundError):
            await engine.client.open_netlink(tmp_path / "absent")
        with pytest.raises(errors.NotFoundError):
            await engine.client.open_netlink("/etc/hostname")
        with pytest.raises(errors.InternalError):
            await engine.client.create_netns(tmp_path / "no/such/directory")
        os.close(netns_fd)
        unmount(path)

    with_engine(tmp_path, body)


def links(netlink: socket.socket) -> list[str]:
    """Ask for all links (RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP) and find their names."""
    netlink.send(b"\x20\0\0\0\x12\0\x01\x03\x01\0\0\0\0\0\0\0" + bytes(16))
    reply = netlink.recv(65536)
    return [name for name in ("lo", "eth0", "docker0") if f"\0{name}\0".encode() in reply]


def unmount(path: Path) -> None:
    import subprocess

    subprocess.run(["umount", path], check=True)


def test_a_killed_engine_is_replaced_and_a_killed_shim_is_succeeded(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        pid = await engine.start("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done")
        first = engine.client
        second = await engine.connect()
        assert second.hello.pid == first.hello.pid
        (status,) = second.hello.containers
        assert (status.id, status.pid, status.state) == (engine.bundle.id, pid, "running")
        first.close()
        os.kill(second.hello.pid, signal.SIGKILL)
        os.waitpid(second.hello.pid, 0)
        while strangers := set(children()) - {pid}:  # what it kept ready ends by itself
            os.waitpid(strangers.pop(), 0)
        await second.wait_lost()
        third = await engine.connect()
        assert third.hello.containers == ()
        await third.adopt(
            engine.bundle.id,
            pid=pid,
            start_ticks=status.start_ticks,
            bundle=engine.bundle.path,
            paused=False,
        )
        await engine.exec("one", "true")
        assert (await engine.exited("one")).code == 0
        await third.kill(engine.bundle.id, signal.SIGTERM)
        os.waitpid(pid, 0)  # the container came back to this process: it has to reap it
        ended = await engine.exited()
        assert ended.code == (7 if TELLS_EXITS else None)
        somebody = os.getpid()  # as if the container's number had been given away
        with pytest.raises(errors.NotFoundError, match="not the one"):
            await third.adopt(
                engine.bundle.id,
                pid=somebody,
                start_ticks=1,
                bundle=engine.bundle.path,
                paused=False,
            )

    with_engine(tmp_path, body)


def test_a_process_of_a_container_is_turned_away_even_if_it_reaches_the_socket(
    tmp_path: Path,
) -> None:
    async def body(engine: Engine) -> None:
        path = str(engine.root / "run/shim.sock")
        read_fd, write_fd = os.pipe()
        if (pid := os.fork()) == 0:
            namespaces.unshare(namespaces.CLONE_NEWPID)
            if os.fork() == 0:  # root, outside of the shim's pid namespace
                channel = protocol.connect(path)
                channel.settimeout(PATIENCE_S)
                try:
                    channel.send(b'{"seq":1,"request":"hello","version":1}')
                    os.write(write_fd, channel.recv(1000) or b"closed")
                except ConnectionError:
                    os.write(write_fd, b"closed")
                os._exit(0)
            os.wait()
            os._exit(0)
        os.close(write_fd)
        os.waitpid(pid, 0)
        with open(read_fd, "rb") as told:
            assert told.read() == b"closed"

    with_engine(tmp_path, body)


def test_a_shim_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def run() -> None:
        with pytest.raises(errors.UnavailableError, match="Not a directory"):
            await ensure_shim(tmp_path / "file/data", tmp_path / "run", on_event=print)

    isolated(lambda: asyncio.run(run()))
