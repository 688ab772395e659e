"""A13: the line between child and parent takes whole, known messages and nothing else."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket

import pytest

from cais.linux.siblings import Birth
from cais.runtime import channel
from cais.runtime.forerunner import Forerunner
from cais.runtime.launch import Launch, LaunchError


@pytest.fixture
def line() -> tuple[channel.Channel, socket.socket]:
    ours, theirs = channel.open_channel()
    other = socket.socket(fileno=os.dup(theirs.fileno()))
    theirs.close()
    return ours, other


def test_messages_and_descriptors_arrive(line: tuple[channel.Channel, socket.socket]) -> None:
    ours, _other = line
    sender = channel.adopt(os.dup(_other.fileno()))
    read_fd, write_fd = os.pipe()
    sender.send({"terminal": True}, write_fd)
    sender.say({"ready": True})
    message, fd = ours.receive()
    assert message == {"terminal": True}
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    assert os.read(read_fd, 1) == b"x"
    assert ours.receive() == ({"ready": True}, -1)
    for number in (fd, read_fd, write_fd):
        os.close(number)
    with pytest.raises(BlockingIOError):
        ours.receive()
    sender.close()
    _other.close()
    assert ours.receive() == (None, -1)
    ours.close()


def test_a_message_too_long_is_refused_on_both_sides(
    line: tuple[channel.Channel, socket.socket],
) -> None:
    ours, other = line
    with pytest.raises(channel.ChannelError, match="over 65536"):
        ours.send({"x": "y" * 70000})
    other.send(b"z" * (channel.PACKET_LIMIT_BYTES + 1))
    with pytest.raises(channel.ChannelError, match="cut off"):
        ours.receive()
    ours.close()
    other.close()


@pytest.mark.parametrize("size", [1, channel.GIFT_LIMIT_BYTES, channel.GIFT_LIMIT_BYTES + 1, 2**24])
def test_a_gift_of_any_size_arrives_with_its_descriptors(size: int) -> None:
    ours, theirs = channel.open_gift_line()
    data = os.urandom(size)
    read_fd, write_fd = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    ours.give(data, [read_fd, write_fd])
    arrived, fds = theirs.take()
    assert arrived == data
    os.write(fds[1], b"x")
    assert os.read(read_fd, 1) == b"x"
    assert len(os.listdir("/proc/self/fd")) == before + len(fds)
    for fd in (*fds, read_fd, write_fd):
        os.close(fd)
    ours.close()
    assert theirs.take() == (b"", [])
    theirs.close()


def test_more_descriptors_than_a_packet_holds_are_refused() -> None:
    ours, theirs = channel.open_gift_line()
    ours.give(b"x", [0] * 253)
    with pytest.raises(ValueError, match="254 descriptors"):
        ours.give(b"x", [0] * 254)
    data, fds = theirs.take()
    assert (data, len(fds)) == (b"x", 253)
    for fd in fds:
        os.close(fd)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [1, channel.GIFT_LIMIT_BYTES + 1])
def test_a_gift_that_did_not_arrive_whole_is_refused(size: int) -> None:
    ours, theirs = channel.open_gift_line()
    ours.give(b"x" * size, [0, 0])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free_fd = os.dup(0)
    os.close(free_fd)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free_fd + 1, limits[1]))
        with pytest.raises(channel.ChannelError, match="cut off"):
            theirs.take()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.dup(0) == free_fd  # none of what did arrive is left open
    os.close(free_fd)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"1", b"[" * 60000])
def test_what_is_no_object_is_refused(
    line: tuple[channel.Channel, socket.socket], data: bytes
) -> None:
    ours, other = line
    other.send(data)
    with pytest.raises(channel.ChannelError):
        ours.receive()
    ours.close()
    other.close()


@pytest.mark.parametrize(
    "message",
    [
        {"unknown": 1},
        {"ready": 1},
        {"process": "1"},
        {"process": True},
        {"error": "text"},
        {"error": {"message": 5}},
        {},
    ],
)
def test_a_launch_ends_at_a_message_it_does_not_expect(
    line: tuple[channel.Channel, socket.socket], message: dict[str, object]
) -> None:
    ours, other = line
    other.send(json.dumps(message).encode())
    cleaned: list[bool] = []
    launch = Launch(ours, None, clean_up=lambda: cleaned.append(True))
    with pytest.raises(LaunchError):
        launch.advance()
    assert cleaned == [True]
    other.close()


def test_an_error_keeps_its_facts(line: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = line
    facts = {"errno": 2, "step": "look up", "message": "m", "kind": "not-found"}
    other.send(json.dumps({"error": facts}).encode())
    with pytest.raises(LaunchError) as failed:
        Launch(ours, None).advance()
    error = failed.value
    assert (error.errno, error.step, error.message, error.kind) == (2, "look up", "m", "not-found")
    other.close()


def test_no_message_yet_is_no_progress(line: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = line
    launch = Launch(ours, None)
    assert launch.advance() is None
    other.close()
    with pytest.raises(LaunchError, match="ended while it was set up"):
        launch.advance()


@pytest.mark.parametrize("message", [{"process": 1}, {"terminal": True}, {"ready": True}])
def test_nobody_else_speaks_for_the_child(
    line: tuple[channel.Channel, socket.socket], message: dict[str, object]
) -> None:
    """The sender is the kernel's word, whoever holds the line."""
    ours, other = line
    helper_pid = os.fork()
    if helper_pid == 0:
        signal.pause()
    process = (helper_pid, os.pidfd_open(helper_pid))
    launch = Launch(ours, None, Forerunner(process, Birth(), ours))
    read_fd, write_fd = os.pipe()
    socket.send_fds(other, [json.dumps(message).encode()], [write_fd])
    os.close(write_fd)
    with pytest.raises(LaunchError, match="another process spoke for the child"):
        launch.advance()
    assert os.read(read_fd, 1) == b""  # the descriptor that came along was closed
    os.close(read_fd)
    other.close()


def test_two_descriptors_are_one_too_many(line: tuple[channel.Channel, socket.socket]) -> None:
    ours, other = line
    read_fd, write_fd = os.pipe()
    socket.send_fds(other, [b"{}"], [write_fd, write_fd])
    os.close(write_fd)
    with pytest.raises(channel.ChannelError, match="cut off"):
        ours.receive()
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)
    ours.close()
    other.close()
