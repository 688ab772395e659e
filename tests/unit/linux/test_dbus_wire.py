"""D-Bus values and messages as bytes: examples by hand, round trips, damage."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import UnavailableError
from cais.linux import namespaces
from cais.linux.dbus import DbusError, Target, Variant, messages, open_connection, wire
from cais.linux.dbus.wire import WireError, decode, encode, split
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PEER = Target("a.b", "/a", "a.b.C")


def test_signatures_split_into_complete_types() -> None:
    assert split("ssa(sv)a(sa(sv))") == ["s", "s", "a(sv)", "a(sa(sv))"]
    assert split("a{sv}yb") == ["a{sv}", "y", "b"]


@pytest.mark.parametrize("signature", ["(", "a", "(s", "z", "a{s", "a" * 64 + "s", ")"])
def test_invalid_signatures(signature: str) -> None:
    with pytest.raises(WireError):
        split(signature)


@pytest.mark.parametrize(
    ("signature", "values", "expected"),
    [
        ("y", [7], b"\x07"),
        ("yu", [1, 2], b"\x01\0\0\0\x02\0\0\0"),
        ("b", [True], b"\x01\0\0\0"),
        ("s", ["hé"], b"\x03\0\0\0h\xc3\xa9\0"),
        ("g", ["au"], b"\x02au\0"),
        ("yt", [1, 2], b"\x01" + bytes(7) + b"\x02" + bytes(7)),
        ("au", [[5, 6]], b"\x08\0\0\0\x05\0\0\0\x06\0\0\0"),
        ("ay", [b"ab"], b"\x02\0\0\0ab"),
        # The padding of an array's items is there without items, and is not counted.
        ("at", [[]], bytes(8)),
        ("v", [Variant("u", 9)], b"\x01u\0\0\x09\0\0\0"),
        ("(ys)", [(1, "x")], b"\x01\0\0\0\x01\0\0\0x\0"),
    ],
)
def test_examples(signature: str, values: list[Any], expected: bytes) -> None:
    assert encode(signature, values) == expected
    assert decode(signature, expected) == values


leaves = st.one_of(
    st.builds(
        Variant, st.just("s"), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    ),
    st.builds(Variant, st.just("t"), st.integers(0, 2**64 - 1)),
    st.builds(Variant, st.just("b"), st.booleans()),
    st.builds(Variant, st.just("ay"), st.binary(max_size=9)),
    st.builds(Variant, st.just("a(ss)"), st.lists(st.tuples(st.just("c"), st.just("rw")))),
)
properties = st.lists(st.tuples(st.text("abc"), leaves))


@given(st.text("xyz"), properties, st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_what_is_encoded_is_decoded(name: str, pairs: list[Any], numbers: list[int]) -> None:
    values = [name, pairs, numbers]
    assert decode("sa(sv)ai", encode("sa(sv)ai", values)) == values


@given(st.text("xyz"), properties, st.data())
def test_damage_is_an_error_or_another_value(name: str, pairs: list[Any], data: Any) -> None:
    whole = bytearray(encode("sa(sv)", [name, pairs]))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        try:
            decode("sa(sv)", damaged)
        except WireError:
            continue


def test_a_message_says_its_own_length() -> None:
    call = messages.call(3, PEER, "Do", "sas", ["x", ["y", "zz"]])
    assert messages.length(call[:16]) == len(call)
    parsed = messages.parse(call)
    assert (parsed.kind, parsed.interface, parsed.member) == (messages.CALL, "a.b.C", "Do")
    assert parsed.body == ["x", ["y", "zz"]]


@pytest.mark.parametrize(
    "fixed", [b"B" + bytes(15), b"l\1\0\2" + bytes(12), b"l\1\0\1" + b"\xff" * 12]
)
def test_no_message(fixed: bytes) -> None:
    with pytest.raises(WireError):
        messages.length(fixed)


def answer(kind: int, serial: int, signature: str, values: list[Any], *, name: str = "") -> bytes:
    fields = [(5, Variant("u", serial))] if serial else []
    fields += [(2, Variant("s", "a.b.C")), (3, Variant("s", "Happened"))]
    fields += [(4, Variant("s", name))] if name else []
    fields += [(8, Variant("g", signature))] if signature else []
    body = encode(signature, values)
    out = bytearray(encode("yyyyuua(yv)", [ord("l"), kind, 0, 1, len(body), 99, fields]))
    wire.pad(out, 8)
    return bytes(out) + body


@pytest.fixture
def peer(tmp_path: Path) -> Any:
    """Start a peer that greets and then sends what it was given; returns its socket's path."""
    threads = []

    def start(sent: bytes, greeting: bytes = b"OK 0123\r\n") -> str:
        listener = socket.socket(socket.AF_UNIX)
        path = str(tmp_path / f"bus{len(threads)}")
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            identity = str(namespaces.uid_outside()).encode().hex()
            greeted = f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n"
            with listener, listener.accept()[0] as client, contextlib.suppress(OSError):
                assert client.recv(4096) == greeted.encode()
                client.sendall(greeting + sent[:7])
                client.sendall(sent[7:])
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(PATIENCE_S)


def test_a_call_keeps_the_signals_that_come_first(peer: Callable[..., str]) -> None:
    sent = (
        answer(messages.SIGNAL, 0, "u", [1])
        + answer(messages.RETURN, 7, "s", ["not mine"])
        + answer(messages.RETURN, 1, "s", ["mine"])
        + answer(messages.SIGNAL, 0, "u", [2])
    )
    with open_connection(peer(sent), is_bus=False, timeout_s=PATIENCE_S) as connection:
        assert connection.call(PEER, "Do") == ["mine"]
        assert connection.next_signal("a.b.C", "Happened", time.monotonic() + PATIENCE_S) == [1]
        assert connection.next_signal("a.b.C", "Happened", time.monotonic() + PATIENCE_S) == [2]
        with pytest.raises(UnavailableError, match="hung up"):
            connection.next_signal("a.b.C", "Happened", time.monotonic() + PATIENCE_S)


def test_a_refusal_has_a_name(peer: Callable[..., str]) -> None:
    sent = answer(messages.ERROR, 1, "s", ["no such unit"], name="x.NoSuchUnit")
    with open_connection(peer(sent), is_bus=False, timeout_s=PATIENCE_S) as connection:
        with pytest.raises(DbusError, match="no such unit") as refused:
            connection.call(PEER, "Do")
        assert refused.value.name == "x.NoSuchUnit"


def test_a_peer_that_does_not_let_us_in(peer: Callable[..., str]) -> None:
    with pytest.raises(UnavailableError, match="not authenticated"):
        open_connection(peer(b"", b"REJECTED EXTERNAL\r\n"), is_bus=False, timeout_s=PATIENCE_S)


def test_root_of_a_user_namespace_is_who_it_is_outside(
    peer: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "uid_outside", lambda: 4321)
    sent = answer(messages.RETURN, 1, "s", ["welcome"])
    with open_connection(peer(sent), is_bus=False, timeout_s=PATIENCE_S) as connection:
        assert connection.call(PEER, "Do") == ["welcome"]


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot connect to .*nothing: No such file"):
        open_connection(str(tmp_path / "nothing"), is_bus=False)
