"""Containers through a real shim process and the engine's client, over the fake runtime."""

import asyncio
import errno
import hashlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from cais import errors
from cais.runtime.launch import LaunchError
from cais.shim.client import ShimClient
from cais.testing.shims import Session, ShimProcess, parse_frames, read_all
from cais.testing.waiting import PATIENCE_S


def logged(path: Path) -> list[tuple[str, str]]:
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(entry["stream"], entry["log"]) for entry in entries]


async def test_start_log_and_exit(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        log = session.log("a")
        started = await session.run("a", "sh", "-c", "echo out; echo err >&2; exit 3", log=log)
        ended = await session.exited("a")
        assert (ended.pid, ended.code, ended.signal) == (started.pid, 3, None)
        assert sorted(logged(Path(log.path))) == [("stderr", "err\n"), ("stdout", "out\n")]
        assert ended.exited_at_ns > started.started_at_ns > 0


async def test_death_by_signal_is_128_plus_its_number(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        await session.client.kill("a", signal.SIGTERM)
        ended = await session.exited("a")
        assert (ended.code, ended.signal) == (143, 15)
        with pytest.raises(errors.NotFoundError, match="container a is not running"):
            await session.client.kill("a", signal.SIGTERM)


async def test_a_program_that_cannot_be_executed(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        with pytest.raises(LaunchError, match='exec: "/no/such"') as failed:
            await session.run("a", "/no/such", log=session.log("a"), open_stdin=True)
        assert (failed.value.kind, failed.value.errno) == ("not-found", errno.ENOENT)
        assert await read_all(attached) == b""
        await session.run("a", "true")  # the name is free again
        assert (await session.exited("a")).code == 0


async def test_a_wrong_bundle_is_the_callers_fault(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach(
            "a", stdin=False, stdout=True, stderr=True, tty=False
        )
        bundle = session.bundle("a", "true")
        (bundle / "config.json").write_text("{")
        with pytest.raises(errors.InvalidArgumentError, match=r"config\.json"):
            await session.client.start(
                "a", bundle=bundle, tty=False, open_stdin=False, stdin_once=False, log=None
            )
        assert await read_all(attached) == b""
        assert session.client.hello.containers == ()


async def test_a_second_start_of_a_running_container_is_refused(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        with pytest.raises(errors.ConflictError, match="already running"):
            await session.run("a", "true")


async def test_attach_before_start_gets_every_byte_in_frames(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach(
            "a", stdin=False, stdout=True, stderr=True, tty=False
        )
        await session.run("a", "sh", "-c", "echo out; echo err >&2")
        assert sorted(parse_frames(await read_all(attached))) == [(1, b"out\n"), (2, b"err\n")]
        await session.exited("a")


async def test_only_the_wanted_stream_is_sent(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach(
            "a", stdin=False, stdout=False, stderr=True, tty=False
        )
        await session.run("a", "sh", "-c", "echo out; echo err >&2")
        assert parse_frames(await read_all(attached)) == [(2, b"err\n")]


async def feed(channel: socket.socket, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(channel, data)
    channel.shutdown(socket.SHUT_WR)


async def test_a_filter_loses_nothing(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        log = session.log("a", max_size=1 << 20, max_file=2)
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await session.run("a", "cat", open_stdin=True, stdin_once=True, log=log)
        data = os.urandom(6 << 20)
        feeder = asyncio.create_task(feed(attached, data))
        out = parse_frames(await read_all(attached))
        await feeder
        assert (
            hashlib.sha256(b"".join(part for _, part in out)).digest()
            == hashlib.sha256(data).digest()
        )
        assert (await session.exited("a")).code == 0


async def test_input_sent_before_the_start_and_a_closed_client_still_arrives(
    shim: ShimProcess,
) -> None:
    async with Session(shim) as session:
        log = session.log("a")
        attached = await session.client.attach(
            "a", stdin=True, stdout=False, stderr=False, tty=False
        )
        attached.send(b"early\n")
        attached.close()
        await session.run("a", "cat", open_stdin=True, stdin_once=True, log=log)
        assert (await session.exited("a")).code == 0
        assert logged(Path(log.path)) == [("stdout", "early\n")]


async def test_without_stdin_once_the_end_of_input_ends_only_the_attachment(
    shim: ShimProcess,
) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await session.run("a", "cat", open_stdin=True)
        await feed(attached, b"")
        assert await read_all(attached) == b""
        again = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        again.send(b"still there\n")
        assert (await asyncio.get_running_loop().sock_recv(again, 100))[8:] == b"still there\n"
        again.close()


async def test_the_end_of_the_first_input_client_closes_stdin_once(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await session.run("a", "cat", open_stdin=True, stdin_once=True)
        attached.close()
        assert (await session.exited("a")).code == 0


async def test_without_open_stdin_the_program_reads_nothing(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        attached.send(b"ignored")
        await session.run("a", "sh", "-c", "cat; readlink /proc/self/fd/0")
        assert parse_frames(await read_all(attached)) == [(1, b"/dev/null\n")]


async def test_two_clients_see_the_same(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        clients = [
            await session.client.attach("a", stdin=False, stdout=True, stderr=True, tty=False)
            for _ in range(2)
        ]
        await session.run("a", "seq", "20000")
        one, two = await asyncio.gather(*map(read_all, clients))
        assert one == two
        numbers = b"".join(part for _, part in parse_frames(one)).split()
        assert numbers == [b"%d" % number for number in range(1, 20001)]


@pytest.mark.skipif(
    not os.access("/dev/ptmx", os.R_OK | os.W_OK), reason="needs to be allowed a terminal"
)
async def test_a_terminal_is_raw_resizable_and_logged_as_stdout(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        log = session.log("a")
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=True)
        script = "stty size; read x; stty size; echo err >&2"
        await session.run(
            "a",
            "sh",
            "-c",
            script,
            tty=True,
            open_stdin=True,
            stdin_once=True,
            log=log,
            size=(24, 80),
        )
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(attached, 100) == b"24 80\r\n"
        await session.client.resize("a", height=50, width=132)
        await loop.sock_sendall(attached, b"go\n")
        assert (await read_all(attached)).endswith(b"50 132\r\nerr\r\n")
        assert (await session.exited("a")).code == 0
        assert ("stdout", "err\r\n") in logged(Path(log.path))
        with pytest.raises(errors.NotFoundError):
            await session.client.resize("a", height=1, width=1)


async def test_resize_without_a_terminal_is_refused(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        with pytest.raises(errors.ConflictError, match="no terminal"):
            await session.client.resize("a", height=1, width=1)


async def test_exec_has_streams_and_an_exit_of_its_own(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        document = session.bundle("a-exec", "sh", "-c", "cat; echo err >&2; exit 7") / "config.json"
        attached = await session.client.attach(
            "a", "x1", stdin=True, stdout=True, stderr=True, tty=False
        )
        started = await session.client.exec(
            "a", "x1", document=document, tty=False, open_stdin=True
        )
        await feed(attached, b"in")
        assert sorted(parse_frames(await read_all(attached))) == [(1, b"in"), (2, b"err\n")]
        ended = await session.exited("a", "x1")
        assert (ended.code, ended.pid) == (7, started.pid)


async def test_exec_needs_a_running_container(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        document = session.bundle("x", "true") / "config.json"
        with pytest.raises(errors.NotFoundError, match="container a is not running"):
            await session.client.exec("a", "x1", document=document, tty=False, open_stdin=False)
        await session.run("a", "sleep", "100")
        await session.client.pause("a")
        with pytest.raises(errors.ConflictError, match="paused, unpause"):
            await session.client.exec("a", "x1", document=document, tty=False, open_stdin=False)
        with pytest.raises(errors.ConflictError, match="already paused"):
            await session.client.pause("a")
        await session.client.resume("a")
        with pytest.raises(errors.ConflictError, match="not paused"):
            await session.client.resume("a")
        await session.client.update("a", {"memory": {}})


async def test_exec_is_signalled_alone(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        document = session.bundle("x", "sleep", "100") / "config.json"
        await session.client.exec("a", "x1", document=document, tty=False, open_stdin=False)
        await session.client.kill("a", signal.SIGKILL, exec_id="x1")
        assert (await session.exited("a", "x1")).code == 137
        async with Session(shim) as other:
            assert [status.state for status in other.client.hello.containers] == ["running"]


async def test_only_sigkill_reaches_everything(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        await session.client.kill("a", signal.SIGKILL, everything=True)
        with pytest.raises(errors.UnsupportedError):
            await session.client.kill("a", signal.SIGTERM, everything=True)


async def test_oom_is_what_the_runtime_says(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        session.bundle("a", "true", oom="")
        await session.run("a", "true")
        assert (await session.exited("a")).oom_killed


async def test_a_stuck_start_blocks_nobody_and_can_be_killed(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        session.bundle("stuck", "true", stuck="")
        starting = asyncio.create_task(session.run("stuck", "true"))
        await session.run("b", "true")
        assert (await session.exited("b")).code == 0
        with pytest.raises(errors.ConflictError, match="starting"):
            await session.client.kill("stuck", signal.SIGTERM)
        async with Session(shim) as other:
            assert [status.state for status in other.client.hello.containers] == ["starting"]
        await session.client.kill("stuck", signal.SIGKILL)
        with pytest.raises(errors.ConflictError, match="interrupted"):
            await starting


async def test_a_killed_engine_loses_no_log_and_no_exit(shim: ShimProcess) -> None:
    script = "echo before; read x; echo after; exit 5"
    async with Session(shim) as first:
        log = first.log("a")
        attached = await first.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await first.run("a", "sh", "-c", script, open_stdin=True, log=log)
        await first.run("b", "sleep", "100")
        first.client.close()  # what the kernel does for a killed process
    attached.send(b"\n")
    attached.close()
    async with Session(shim) as second:
        assert [status.id for status in second.client.hello.containers][-1] == "b"
        ended = next(iter(second.client.hello.exits), None) or await second.exited("a")
        assert (ended.id, ended.code) == ("a", 5)
    async with Session(shim) as third:
        known = {exit_.exit_seq for exit_ in third.client.hello.exits}
        await third.client.ack(known)
    async with Session(shim) as fourth:
        assert fourth.client.hello.exits == ()
    assert logged(Path(log.path)) == [("stdout", "before\n"), ("stdout", "after\n")]


async def test_hello_tells_hundreds_of_exits_and_containers(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        for number in range(120):
            await session.run(f"c{number}", "true")
        await session.arrived(120)
        async with Session(shim) as other:
            assert len(other.client.hello.exits) == 120


async def test_output_of_programs_that_end_at_once_is_complete(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        for number in range(100):
            name = f"c{number}"
            log = session.log(name)
            attached = await session.client.attach(
                name, stdin=False, stdout=True, stderr=True, tty=False
            )
            await session.run(name, "echo", name, log=log)
            assert parse_frames(await read_all(attached)) == [(1, f"{name}\n".encode())]
            await session.exited(name)
            assert logged(Path(log.path)) == [("stdout", f"{name}\n")]


@pytest.mark.skipif(os.geteuid() != 0, reason="a shim lets root alone look at its descriptors")
async def test_no_descriptor_is_left_after_many_containers(shim: ShimProcess) -> None:
    async with Session(shim) as session:

        async def cycle(number: int) -> None:
            name = f"c{number}"
            attached = await session.client.attach(
                name, stdin=True, stdout=True, stderr=True, tty=number % 2 == 0
            )
            await session.run(
                name, "echo", "x", tty=number % 2 == 0, open_stdin=True, log=session.log(name)
            )
            await read_all(attached)
            await session.exited(name)

        await cycle(0)
        await cycle(1)
        before = shim.fds()
        for number in range(50):
            await cycle(number)
        assert shim.fds() == before


async def test_attaching_too_late_ends_at_once_until_the_exit_is_acknowledged(
    shim: ShimProcess,
) -> None:
    async with Session(shim) as session:
        await session.run("a", "true")
        await session.arrived(1)
        late = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        assert await read_all(late) == b""
        await session.exited("a")
        early = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await session.run("a", "echo", "again")
        assert parse_frames(await read_all(early)) == [(1, b"again\n")]


async def test_orphans_of_a_container_are_reaped(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sh", "-c", "true & exec sleep 100")  # sleep never waits for it
        await session.run("b", "sh", "-c", "(sleep 0.05; exit 4) & exit 0")
        assert (await session.exited("b")).code == 0
        async with asyncio.timeout(PATIENCE_S):
            while len(shim.children()) > 1:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.05)


async def test_a_hundred_starts_at_once(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        names = [f"c{number}" for number in range(100)]
        await asyncio.gather(*(session.run(name, "sh", "-c", f"exit {name[1:]}") for name in names))
        exits = await asyncio.gather(*map(session.exited, names))
        assert [ended.code for ended in exits] == list(range(100))
        assert not session.events


async def test_shutdown_needs_an_empty_shim(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        await session.run("a", "sleep", "100")
        with pytest.raises(errors.ConflictError, match="still holds"):
            await session.client.shutdown()
        await session.client.kill("a", signal.SIGKILL)
        await session.exited("a")
        await session.client.shutdown()
        await session.client.wait_lost()
        assert shim.process.wait(PATIENCE_S) == 0
        assert not shim.socket_path.exists()
        with pytest.raises(errors.UnavailableError):
            await ShimClient.connect(shim.socket_path, on_event=session.events.append)
