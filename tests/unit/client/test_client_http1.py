"""Against servers that answer well, badly, late and not at all."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cais import errors
from cais.client import Address, Client, demultiplex
from cais.client.client import encode_query, quote
from cais.client.http1 import ProtocolError, encode_chunks, encode_head
from cais.testing.waiting import PATIENCE_S

Answer = bytes | Callable[[socket.socket], None]
Serve = Callable[..., tuple[Client, list[bytes]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answer connections in turn with what is given; collects what was asked."""
    opened: list[tuple[socket.socket, threading.Thread]] = []

    def start(*answers: Answer, version: str | None = "1.44") -> tuple[Client, list[bytes]]:
        path = tmp_path / "s"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        asked: list[bytes] = []
        thread = threading.Thread(target=_serve, args=(listener, answers, asked))
        thread.start()
        opened.append((listener, thread))
        return Client(Address(str(path)), version), asked

    yield start
    for listener, thread in opened:
        thread.join(PATIENCE_S)
        listener.close()


def _serve(listener: socket.socket, answers: tuple[Answer, ...], asked: list[bytes]) -> None:
    for answer in answers:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65536)
            asked.append(data)
            if isinstance(answer, bytes):
                with contextlib.suppress(ConnectionError):  # a client may hear enough and go
                    connection.sendall(answer)
            else:
                answer(connection)


def response(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def test_request_line_and_document(serve: Serve) -> None:
    client, asked = serve(response(b'{"Id": "x"}', "201 Created"))
    answer = client.post(
        "/containers/create", {"name": "a b", "t": None, "v": True}, {"Image": "i"}
    )
    assert answer.json() == {"Id": "x"}
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1.44/containers/create?name=a%20b&v=1 HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in head
    assert body == b'{"Image": "i"}'


@pytest.mark.parametrize(
    ("server", "spoken"), [("1.41", "1.41"), ("1.51", "1.51"), ("1.99", "1.51"), ("1.9", "1.9")]
)
def test_speaks_the_lower_version(serve: Serve, server: str, spoken: str) -> None:
    pong = response(b"", "200 OK", f"Api-Version: {server}")
    client, asked = serve(pong, response(b"[]"), version=None)
    client.get("/containers/json").read()
    assert asked[0].startswith(b"HEAD /_ping ")
    assert asked[1].startswith(f"GET /v{spoken}/containers/json ".encode())


def test_a_chunked_stream_of_documents(serve: Serve) -> None:
    client, _ = serve(chunked(b'{"a":1}\n{"a"', b":2}\n", b'{"a":3}'))
    assert list(client.get("/events").documents()) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_interim_answers_are_skipped(serve: Serve) -> None:
    client, _ = serve(b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"x"))
    assert client.get("/x").read() == b"x"


def test_a_body_until_the_end(serve: Serve) -> None:
    client, _ = serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 200_000)
    assert client.get("/x").read() == b"z" * 200_000


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", errors.InvalidArgumentError),
        ("404 Not Found", errors.NotFoundError),
        ("409 Conflict", errors.ConflictError),
        ("500 Internal Server Error", errors.InternalError),
        ("501 Not Implemented", errors.UnsupportedError),
        ("503 Service Unavailable", errors.UnavailableError),
        ("418 I'm a teapot", errors.InternalError),
    ],
)
def test_errors_keep_class_and_message(
    serve: Serve, status: str, kind: type[errors.CaisError]
) -> None:
    client, _ = serve(response(b'{"message": "No such thing: x"}', status))
    with pytest.raises(kind, match=r"^No such thing: x$"):
        client.get("/x")


@pytest.mark.parametrize("body", [b"plain text", b"[1]", b'{"message": 5}', b"\xff\xfe", b""])
def test_an_error_without_a_message_is_still_one(serve: Serve, body: bytes) -> None:
    client, _ = serve(response(body, "500 x"))
    with pytest.raises(errors.InternalError, match=r"."):
        client.get("/x")


def test_a_huge_error_is_cut(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b"y" * 65536)

    client, _ = serve(answer)
    with pytest.raises(errors.InternalError) as failed:
        client.get("/x")
    assert len(str(failed.value)) <= 65536


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nxxxxx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxxxxxyy\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxx",
    ],
)
def test_a_hostile_server_is_an_error(serve: Serve, answer: bytes) -> None:
    client, _ = serve(answer)
    with pytest.raises(ProtocolError):
        client.get("/x").read()


@pytest.mark.parametrize("body", [b"{", b'{"a": 1e999999', b"[" * 100_000])
def test_broken_json_is_an_error(serve: Serve, body: bytes) -> None:
    client, _ = serve(response(body))
    with pytest.raises(ProtocolError, match="not JSON"):
        client.get("/x").json()


def test_a_document_over_the_limit(serve: Serve) -> None:
    client, _ = serve(response(b"x" * 5000))
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        client.get("/x").read(1000)


def test_a_header_line_without_an_end_is_not_collected(serve: Serve) -> None:
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20:
                connection.sendall(b"x" * 65536)
                sent += 65536

    client, _ = serve(answer)
    with pytest.raises(ProtocolError, match="without an end"):
        client.get("/x")
    assert sent < 8 << 20


def test_empty_pieces_do_not_end_a_chunked_body() -> None:
    assert b"".join(encode_chunks([b"ab", b"", b"c"])) == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(errors.UnavailableError, match="cannot connect to the daemon at unix://"):
        Client(Address(str(tmp_path / "none"))).get("/x")


def test_an_upload_is_chunked_and_an_early_refusal_is_heard(serve: Serve) -> None:
    client, asked = serve(response(b'{"message": "no"}', "400 x"))
    with pytest.raises(errors.InvalidArgumentError, match=r"^no$"):
        client.post("/images/load", body=(b"x" * 100_000 for _ in range(100)))
    assert b"Transfer-Encoding: chunked" in asked[0]


def test_hijack_keeps_bytes_read_ahead_and_half_closes(serve: Serve) -> None:
    received = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
        while data := connection.recv(100):
            received.append(data)
        connection.sendall(b" late")

    client, asked = serve(answer)
    with client.hijack("/containers/x/attach", {"stdin": True}) as stream:
        stream.send(b"typed")
        stream.close_stdin()
        assert b"".join(stream.pieces()) == b"early late"
    assert b"Upgrade: tcp" in asked[0]
    assert b"".join(received) == b"typed"


def test_a_refused_hijack_is_an_error(serve: Serve) -> None:
    client, _ = serve(response(b'{"message": "No such container: x"}', "404 x"))
    with pytest.raises(errors.NotFoundError, match="No such container: x"):
        client.hijack("/containers/x/attach")


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 1000])
def test_frames_in_any_pieces(size: int) -> None:
    data = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, b"x" * 100)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    found: dict[int, bytes] = {1: b"", 2: b""}
    for stream, payload in demultiplex(pieces):
        found[stream] += payload
    assert found == {1: b"out" + b"x" * 100, 2: b"err"}


@pytest.mark.parametrize(
    "data", [b"\4\0\0\0\0\0\0\1x", b"\1\0\1\0\0\0\0\1x", b"\1\0\0", frame(1, b"ab")[:-1]]
)
def test_bad_frames(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(demultiplex([data]))


def test_quoting() -> None:
    assert quote("a/b:c@d é&=?#%+") == "a/b:c@d%20%C3%A9%26%3D%3F%23%25%2B"
    assert encode_query({"a": [1, 2], "b": None, "c": False, "d": "x&y"}) == "?a=1&a=2&c=0&d=x%26y"
    assert encode_query({}) == encode_query(None) == ""


def test_no_line_is_smuggled_into_a_head() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_head("GET", "/x HTTP/1.1\r\nEvil: 1", [])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/x.sock", Address("/run/x.sock")),
        ("tcp://127.0.0.1:2375", Address(None, "127.0.0.1", 2375)),
        ("tcp://[::1]:2375", Address(None, "::1", 2375)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "x", "unix://", "tcp://host", "tcp://host:0", "tcp://h:99999"]
)
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="unable to parse docker host"):
        Address.parse(text)


def test_unsupported_addresses() -> None:
    with pytest.raises(errors.UnsupportedError, match="ssh"):
        Address.parse("ssh://host")
