"""The protocol against peers that send garbage, do not read, or are not to be trusted."""

import array
import asyncio
import fcntl
import json
import os
import random
import resource
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cais import errors
from cais.runtime.launch import LaunchError
from cais.shim import launcher, protocol
from cais.shim.client import ShimClient, ensure_shim
from cais.testing.shims import Session, ShimProcess, read_all
from cais.testing.waiting import PATIENCE_S


def dial(shim: ShimProcess) -> socket.socket:
    channel = protocol.connect(str(shim.socket_path))
    channel.settimeout(PATIENCE_S)
    return channel


def ask(channel: socket.socket, **fields: Any) -> dict[str, Any]:
    channel.send(json.dumps({"seq": 1, **fields}).encode())
    answer: dict[str, Any] = json.loads(channel.recv(protocol.MAX_PACKET))
    return answer


@pytest.mark.parametrize(
    "packet", [b"garbage", b"[]", b"{}", b'{"seq":"1"}', b"[" * 60000, b"x" * 100_000, b"\xff\x00"]
)
def test_what_is_no_packet_ends_the_connection_alone(shim: ShimProcess, packet: bytes) -> None:
    with dial(shim) as bystander, dial(shim) as channel:
        channel.send(packet)
        assert channel.recv(100) == b""
        assert ask(bystander, request="hello", version=1)["ok"]


def test_random_packets_never_end_the_shim(shim: ShimProcess) -> None:
    rng = random.Random(11)
    verbs = ["start", "exec", "attach", "detach", "resize", "kill", "pause", "resume", "update"]
    verbs += ["ack", "adopt", "netns", "netlink", "hello", "nonsense"]
    values = [
        None,
        True,
        0,
        -1,
        1 << 70,
        1.5,
        "",
        "x",
        "/",
        "/a\0b",
        [],
        [1],
        {},
        {"a": 1},
        "a" * 300,
    ]
    names = [
        "id",
        "exec_id",
        "bundle",
        "tty",
        "open_stdin",
        "stdin_once",
        "log",
        "size",
        "document",
    ]
    names += ["stdin", "stdout", "stderr", "height", "width", "signal", "resources", "path"]
    names += ["exits", "pid", "start_ticks", "version", "all", "paused"]
    with dial(shim) as channel:
        for _ in range(600):
            fields = {name: rng.choice(values) for name in names if rng.random() < 0.8}
            if fields.get("path") == "/":
                del fields["path"]
            answer = ask(channel, request=rng.choice(verbs), **fields)
            assert "ok" in answer or answer["error"]["kind"] in vars(errors)


@pytest.mark.skipif(os.geteuid() != 0, reason="a shim lets root alone look at its descriptors")
def test_a_packet_with_descriptors_nobody_asked_for_leaks_none(shim: ShimProcess) -> None:
    with dial(shim) as channel:
        assert ask(channel, request="hello", version=1)["ok"]
        before = shim.fds()
        for count in (1, 2, protocol.MAX_FDS, 60):
            fds = array.array("i", [0] * count)
            channel.sendmsg(
                [b'{"seq":1,"request":"attach","id":"a"}'],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)],
            )
            assert "error" in json.loads(channel.recv(1000))
        assert shim.fds() == before


def test_attach_wants_a_stream_socket(shim: ShimProcess) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with dial(shim) as channel, one, other, open("/dev/null") as null:
        fields = {"id": "a", "stdin": True, "stdout": True, "stderr": True, "tty": False}
        for fd in (one.fileno(), null.fileno()):
            packet = json.dumps({"seq": 1, "request": "attach", **fields}).encode()
            rights = array.array("i", [fd])
            channel.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            answer = json.loads(channel.recv(1000))
            assert answer["error"]["kind"] == "InvalidArgumentError"


def test_another_version_is_refused_by_name(shim: ShimProcess) -> None:
    with dial(shim) as channel:
        answer = ask(channel, request="hello", version=2)
        assert answer["error"]["kind"] == "UnsupportedError"
        assert "version 1" in answer["error"]["message"]


def test_unknown_requests_are_named(shim: ShimProcess) -> None:
    with dial(shim) as channel:
        error = ask(channel, request="reboot")["error"]
        assert (error["kind"], error["message"]) == ("UnsupportedError", "no such request: reboot")


async def test_a_peer_that_never_reads_is_dropped_and_costs_no_event(shim: ShimProcess) -> None:
    with dial(shim) as deaf:
        deaf.send(b'{"seq":1,"request":"hello","version":1}')
        deaf.settimeout(0)
        request = b'{"seq":1,"request":"detach","id":"%b"}' % (b"x" * 300)  # an error each
        dropped = False
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                deaf.send(request)
            except BlockingIOError:
                await asyncio.sleep(0.001)  # the shim's turn, on a busy machine too
            except OSError:
                dropped = True
                break
        assert dropped
    async with Session(shim) as session:
        await session.run("a", "true")
        assert (await session.exited("a")).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a shim lets root alone look at its descriptors")
def test_the_socket_is_a_path_for_its_owner_alone(shim: ShimProcess) -> None:
    mode = shim.socket_path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(shim.socket_path.parent.stat().st_mode) == 0o700
    listening = Path(f"/proc/{shim.process.pid}/net/unix").read_text()
    ours = {link.partition("[")[2].rstrip("]") for link in shim.fds() if "socket:" in link}
    names = [line.split()[7:] for line in listening.splitlines() if line.split()[6] in ours]
    assert [name for name in names if name and name[0].startswith("@")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_another_user_is_turned_away_even_with_the_door_open(shim: ShimProcess) -> None:
    for path in (shim.root, shim.root / "run"):
        path.chmod(0o755)
    shim.socket_path.chmod(0o666)
    read_fd, write_fd = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel.settimeout(PATIENCE_S)
            channel.connect(str(shim.socket_path))
            try:
                channel.send(b'{"seq":1,"request":"hello","version":1}')
                os.write(write_fd, channel.recv(1000) or b"closed")
            except ConnectionError:
                os.write(write_fd, b"closed")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write_fd)
    with open(read_fd, "rb") as told:
        assert told.read() == b"closed"


@pytest.mark.skipif(os.geteuid() != 0, reason="a shim lets root alone look at its descriptors")
async def test_without_descriptors_clients_are_refused_and_later_served(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        used = len(shim.fds())
        hard = resource.prlimit(shim.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(shim.process.pid, resource.RLIMIT_NOFILE, (used + 2, hard))
        with pytest.raises(errors.CaisError):
            await session.run("a", "true")
        crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(6)]
        for channel in crowd:
            channel.settimeout(PATIENCE_S)
            channel.connect(str(shim.socket_path))
        assert crowd[-1].recv(100) == b""
        with pytest.raises(errors.InvalidArgumentError, match="0 descriptors came"):
            await session.client.attach("a", stdin=False, stdout=True, stderr=True, tty=False)
        for channel in crowd:
            channel.close()
        resource.prlimit(shim.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        await session.run("a", "true")
        assert (await session.exited("a")).code == 0


async def test_a_second_shim_of_a_data_root_is_refused(
    shim: ShimProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_DYING_S", 0.01)
    with pytest.raises(AssertionError, match=r"shim\.lock is held by another shim"):
        ShimProcess(shim.root)
    with pytest.raises(errors.ConflictError, match="held by another shim: pid"):
        await ensure_shim(shim.root / "data", shim.root / "other", on_event=print)


def test_the_lock_of_a_shim_that_is_just_dying_is_waited_for(tmp_path: Path) -> None:
    with (tmp_path / protocol.LOCK_NAME).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(0.02, fcntl.flock, (held, fcntl.LOCK_UN))
        release.start()
        launcher._wait_unlocked(str(tmp_path))
        release.join()
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_detached_attachment_is_closed(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        attached = await session.client.attach("a", stdin=True, stdout=True, stderr=True, tty=False)
        await session.client.detach("a")
        await session.client.detach("a")
        assert await read_all(attached) == b""


async def test_requests_fail_clearly_once_the_shim_is_gone(shim: ShimProcess) -> None:
    async with Session(shim) as session:
        session.bundle("a", "true", stuck="")
        starting = asyncio.create_task(session.run("a", "true"))
        await session.client.detach("b")
        shim.process.kill()
        with pytest.raises(errors.UnavailableError):
            await starting
        await session.client.wait_lost()
        with pytest.raises(errors.UnavailableError, match="closed"):
            await session.client.pause("a")


async def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(errors.UnavailableError, match="no shim listens"):
        await ShimClient.connect(tmp_path / "absent" / "shim.sock", on_event=print)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.ConflictError("busy"), errors.ConflictError, "busy"),
        (protocol.PacketError("bad"), errors.InvalidArgumentError, "bad"),
        (ValueError("oops"), errors.InternalError, "ValueError: oops"),
    ],
)
def test_errors_cross_as_their_class(error: Exception, kind: type, message: str) -> None:
    again = protocol.error_from(protocol.error_document(error))
    assert (type(again), str(again)) == (kind, message)


def test_a_launch_error_keeps_whose_fault_it_is() -> None:
    error = LaunchError("no such file", errno=2, kind="not-found")
    again = protocol.error_from(json.loads(json.dumps(protocol.error_document(error))))
    assert isinstance(again, LaunchError)
    assert (again.message, again.errno, again.kind) == ("no such file", 2, "not-found")


def test_an_error_document_of_a_stranger_is_an_internal_error() -> None:
    for document in ({}, {"kind": "CaisError.__init__"}, {"kind": "annotations"}):
        assert isinstance(protocol.error_from(document), errors.CaisError)
