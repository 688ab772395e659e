"""Streams, clients and their backlogs in one process, with a clock of our own."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cais.shim import attachment, backlog
from cais.shim.attachment import Attachment
from cais.shim.backlog import Backlog
from cais.shim.loop import READ, Loop
from cais.shim.stdio import Streams

BOTH = frozenset({"stdout", "stderr"})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A loop, the streams of a program that is this test, and its clients."""

    def __init__(self, directory: Path, *, close_on_end: bool = False) -> None:
        self.directory = directory
        self.clock = Clock()
        self.faults: list[BaseException] = []
        self.loop = Loop(self.faults.append, self.clock)
        self.streams = Streams(
            self.loop, log=None, close_on_end=close_on_end, spill_directory=str(directory)
        )
        self.stdin, ours_in = os.pipe()
        ours_out, self.stdout = os.pipe()
        ours_err, self.stderr = os.pipe()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.ours = (ours_in, ours_out, ours_err)
        self.open_fds = {self.stdin, self.stdout, self.stderr}

    def open(self) -> None:
        self.streams.open_pipes(*self.ours)

    def attach(self, *, stdin: bool = False, tty: bool = True) -> tuple[Attachment, socket.socket]:
        peer, theirs = socket.socketpair()
        peer.settimeout(0)
        client = Attachment(self.loop, theirs, streams=BOTH, stdin=stdin, tty=tty)
        self.streams.attach(client)
        return client, peer

    def turn(self, times: int = 20) -> None:
        for _ in range(times):
            self.loop.run_once(0)
        assert not self.faults

    def produce(self, limit: int) -> int:
        """Write as a program until it would block or has written ``limit``; return how much."""
        written = 0
        while written < limit:
            try:
                written += os.write(self.stdout, pattern(written, min(65536, limit - written)))
            except BlockingIOError:
                self.turn(2)
                try:
                    written += os.write(self.stdout, pattern(written, min(65536, limit - written)))
                except BlockingIOError:
                    return written
        return written

    def close(self, fd: int) -> None:
        self.open_fds.remove(fd)
        os.close(fd)


PERIOD = bytes(random.Random(1).randbytes(65521))


def pattern(offset: int, size: int) -> bytes:
    start = offset % len(PERIOD)
    return (PERIOD[start:] + PERIOD * (size // len(PERIOD) + 1))[:size]


def drain(peer: socket.socket) -> bytes:
    chunks = []
    while True:
        try:
            chunk = peer.recv(1 << 20)
        except BlockingIOError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.streams.finish()
    for fd in made.open_fds:
        os.close(fd)
    made.loop.close()


def test_a_client_that_stalls_for_10_s_is_dropped_and_lets_the_program_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "SPILL_LIMIT", 2 << 20)
    bench.open()
    stalled, peer = bench.attach()
    limit = 16 << 20
    written = bench.produce(limit)
    assert (3 << 20) < written < (6 << 20)  # memory, spill, socket and pipe are full; it waits
    bench.clock.now = 9.9
    bench.turn()
    assert not stalled.is_closed
    assert bench.produce(1) == 0
    bench.clock.now = 10.1
    bench.turn()
    assert stalled.is_closed
    assert bench.produce(limit) == limit
    peer.close()


def test_a_slow_client_gets_everything_in_order_and_is_not_dropped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "SPILL_LIMIT", 2 << 20)
    bench.open()
    client, peer = bench.attach()
    received = b""
    written = 0
    while written < 12 << 20:
        if piece := min(65536, (12 << 20) - written):
            try:
                written += os.write(bench.stdout, pattern(written, piece))
            except BlockingIOError:
                bench.clock.now += 5  # slow, but something moves within every 10 s
                received += peer.recv(300_000)
        bench.turn(3)
    for _ in range(200):
        received += drain(peer)
        bench.turn()
    assert not client.is_closed
    assert len(received) == written
    assert received == pattern(0, written)
    peer.close()


def test_one_slow_client_does_not_cost_the_other_anything(bench: Bench) -> None:
    bench.open()
    _, slow = bench.attach()
    _, quick = bench.attach()
    received = b""
    for number in range(100):
        os.write(bench.stdout, pattern(number * 65536, 65536))
        bench.turn(3)
        received += drain(quick)
    assert received == pattern(0, 100 * 65536)
    late = b""
    for _ in range(100):
        late += drain(slow)
        bench.turn(5)
    assert late == received
    slow.close()
    quick.close()


def test_frames_survive_partial_sends(bench: Bench) -> None:
    bench.open()
    _, peer = bench.attach(tty=False)
    sent = b""
    for number in range(40):
        part = pattern(number * 30011, 30011)
        os.write(bench.stdout if number % 2 else bench.stderr, part)
        bench.turn(3)
        sent += part
    stream = b""
    for _ in range(60):
        stream += drain(peer)
        bench.turn()
    out, kinds = b"", set()
    while stream:
        kinds.add(stream[0])
        assert stream[1:4] == bytes(3)
        size = int.from_bytes(stream[4:8], "big")
        out, stream = out + stream[8 : 8 + size], stream[8 + size :]
    assert kinds == {1, 2}
    assert out == sent
    peer.close()


def test_a_full_input_pipe_stops_the_reading_of_the_client(bench: Bench) -> None:
    bench.open()
    _, peer = bench.attach(stdin=True)
    sent = 0
    while sent < 64 << 20:
        try:
            sent += peer.send(pattern(sent, 65536))
        except BlockingIOError:
            bench.turn()
            try:
                sent += peer.send(pattern(sent, 65536))
            except BlockingIOError:
                break
    assert sent < 4 << 20
    peer.shutdown(socket.SHUT_WR)
    received = b""
    for _ in range(300):
        with contextlib.suppress(BlockingIOError):
            received += os.read(bench.stdin, 1 << 20)
        bench.turn(3)
    assert received == pattern(0, sent)
    peer.close()


@pytest.mark.parametrize("close_on_end", [True, False])
def test_half_close_ends_the_input_or_only_the_attachment(
    tmp_path: Path, *, close_on_end: bool
) -> None:
    bench = Bench(tmp_path, close_on_end=close_on_end)
    bench.open()
    client, peer = bench.attach(stdin=True)
    peer.send(b"last words")
    peer.shutdown(socket.SHUT_WR)
    bench.turn()
    assert os.read(bench.stdin, 100) == b"last words"
    assert client.is_closed is not close_on_end
    if close_on_end:
        assert os.read(bench.stdin, 100) == b""  # the program sees the end
        os.write(bench.stdout, b"answer")
        bench.turn()
        assert peer.recv(100) == b"answer"
    else:
        with pytest.raises(BlockingIOError):
            os.read(bench.stdin, 100)
        assert peer.recv(100) == b""
    bench.streams.finish()
    peer.close()
    for fd in bench.open_fds:
        os.close(fd)
    bench.loop.close()


def test_a_program_that_closed_its_input_does_not_make_the_loop_spin(bench: Bench) -> None:
    bench.open()
    client, peer = bench.attach(stdin=True)
    bench.close(bench.stdin)
    calls = 0
    real = client._receive

    def counted() -> None:
        nonlocal calls
        calls += 1
        real()

    client._receive = counted  # type: ignore[method-assign]
    for _ in range(50):
        with contextlib.suppress(BlockingIOError):
            peer.send(b"x" * 65536)
        bench.turn(2)
    assert calls <= 3
    assert not client.is_closed
    os.write(bench.stdout, b"still served")
    bench.turn()
    assert peer.recv(100) == b"still served"
    peer.close()
    bench.turn()
    assert client.is_closed


def test_an_idle_loop_sleeps_with_hung_up_and_waiting_clients(bench: Bench) -> None:
    early, peer = bench.attach(stdin=True)
    peer.send(b"unread")
    peer.close()
    bench.turn()
    assert bench.loop._epoll.poll(0) == []  # nothing spins
    assert not early.is_closed  # its input is still to be delivered
    bench.open()
    bench.turn()
    assert os.read(bench.stdin, 100) == b"unread"
    assert early.is_closed
    assert bench.loop._epoll.poll(0) == []


def test_finish_passes_on_what_is_in_the_pipes_and_then_closes(bench: Bench) -> None:
    bench.open()
    client, peer = bench.attach()
    os.write(bench.stdout, b"out")
    os.write(bench.stderr, b"err")
    bench.streams.finish()
    assert drain(peer) == b"outerr"
    assert client.is_closed
    peer.close()


def test_finish_does_not_wait_for_a_client_but_the_client_gets_the_rest(bench: Bench) -> None:
    bench.open()
    client, peer = bench.attach()
    total = 0
    while total < 3 << 20:
        total += os.write(bench.stdout, pattern(total, 65536))
        bench.turn(2)
    bench.streams.finish()
    assert not client.is_closed
    received = b""
    for _ in range(50):
        received += drain(peer)
        bench.turn()
    assert received == pattern(0, total)
    assert client.is_closed
    peer.close()


def test_a_client_that_reads_nothing_after_the_end_is_let_go(bench: Bench) -> None:
    bench.open()
    client, peer = bench.attach()
    for number in range(40):
        os.write(bench.stdout, pattern(number, 65536))
        bench.turn(2)
    bench.streams.finish()
    bench.clock.now = attachment.STALL_S + 0.1
    bench.turn()
    assert client.is_closed
    peer.close()


@pytest.mark.skipif(
    not os.access("/dev/ptmx", os.R_OK | os.W_OK), reason="needs to be allowed a terminal"
)
def test_a_terminal_nobody_has_open_is_the_end(tmp_path: Path) -> None:
    faults: list[BaseException] = []
    loop = Loop(faults.append)
    streams = Streams(loop, log=None, close_on_end=False, spill_directory=str(tmp_path))
    master, slave = os.openpty()
    streams.open_terminal(master, open_stdin=True)
    peer, theirs = socket.socketpair()
    streams.attach(Attachment(loop, theirs, streams=BOTH, stdin=True, tty=True))
    assert streams.resize(40, 100)
    assert os.get_terminal_size(slave) == (100, 40)
    os.write(slave, b"hello\n")
    loop.run_once(1)
    os.close(slave)
    loop.run_once(1)
    assert not streams.resize(1, 1)
    assert loop._epoll.poll(0) == []
    streams.finish()
    assert peer.recv(100) == b"hello\r\n"
    assert peer.recv(100) == b""
    peer.close()
    loop.close()
    assert not faults


def test_backlog_keeps_the_order_through_memory_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(backlog, "SPILL_LIMIT", 50_000)
    monkeypatch.setattr(backlog, "_SEGMENT_SIZE", 3000)
    monkeypatch.setattr(backlog, "_CHUNK", 700)
    rng = random.Random(2)
    queue, written, read = Backlog(str(tmp_path)), 0, 0
    for _ in range(5000):
        if rng.random() < 0.5 and not queue.is_full:
            size = rng.randrange(1, 900)
            queue.append(pattern(written, size))
            written += size
        elif len(queue):
            first = queue.peek()
            count = rng.randrange(1, len(first) + 1)
            assert first[:count] == pattern(read, count)
            queue.consume(count)
            read += count
        assert len(queue) == written - read
        assert queue._memory <= 1700
    assert list(tmp_path.iterdir()) == []
    fds = len(os.listdir("/proc/self/fd"))
    queue.close()
    assert len(os.listdir("/proc/self/fd")) <= fds


def test_backlog_on_a_disk_that_refuses_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MEMORY_LIMIT", 1000)
    queue = Backlog(str(tmp_path / "absent"))
    for number in range(5):
        queue.append(pattern(number * 400, 400))
    assert queue.is_full
    received = b""
    while len(queue):
        part = bytes(queue.peek())
        received += part
        queue.consume(len(part))
    assert received == pattern(0, 2000)
    assert not queue.is_full


def test_a_descriptor_reused_in_the_same_round_gets_no_stale_event() -> None:
    faults: list[BaseException] = []
    loop = Loop(faults.append)
    first, second = os.pipe(), os.pipe()
    for pipe in (first, second):
        os.write(pipe[1], b"x")
    seen: list[int] = []

    def replace(_events: int) -> None:
        for fd in (first[0], second[0]):
            loop.unwatch(fd)
            loop.watch(fd, READ, lambda _events: seen.append(1))

    loop.watch(first[0], READ, replace)
    loop.watch(second[0], READ, replace)
    loop.run_once(0)
    assert seen == []
    loop.run_once(0)
    assert seen == [1, 1]
    for fd in (*first, *second):
        os.close(fd)
    loop.close()


def test_a_callback_that_raises_is_reported_once_and_not_called_again() -> None:
    faults: list[BaseException] = []
    loop = Loop(faults.append)
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x")
    loop.watch(read_fd, READ, lambda _events: 1 // 0)  # type: ignore[arg-type]
    for _ in range(3):
        loop.run_once(0)
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    os.close(read_fd)
    os.close(write_fd)
    loop.close()


def test_timers_fire_in_order_and_not_after_cancel() -> None:
    clock = Clock()
    faults: list[BaseException] = []
    loop = Loop(faults.append, clock)
    fired: list[str] = []
    loop.call_later(2, lambda: fired.append("b"))
    loop.call_later(1, lambda: fired.append("a"))
    loop.call_later(1.5, lambda: fired.append("never")).cancel()
    loop.run_once(0)
    assert fired == []
    clock.now = 2
    loop.run_once(0)
    assert fired == ["a", "b"]
    loop.close()
