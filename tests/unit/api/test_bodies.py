"""JSON bodies: the content type, the size, and what is wrong with them, in Docker's words."""

from typing import Any

import pytest

from cais.api import bodies
from cais.testing.fake_engine import FakeEngine

JSON = "application/json"


@pytest.mark.parametrize(
    ("content_type", "text"),
    [
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("", "malformed Content-Type header (): mime: no media type"),
        ("json", "malformed Content-Type header (json): mime: expected slash after first token"),
    ],
)
async def test_another_content_type(client: Any, content_type: str, text: str) -> None:
    headers = {"Content_Type": content_type} if content_type else {}
    reply = await client.ask("POST", "/volumes/create", b"{}", **headers)
    assert reply.status == 400
    assert text in reply.body.decode()


@pytest.mark.parametrize(
    "content_type", [JSON, "application/json; charset=utf-8", "Application/JSON"]
)
async def test_json_content_types(client: Any, content_type: str) -> None:
    reply = await client.ask("POST", "/volumes/create", b"{}", Content_Type=content_type)
    assert reply.status == 201


async def test_no_body_needs_no_content_type(client: Any) -> None:
    assert (await client.ask("POST", "/volumes/create")).status == 201


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"1", b'{"Name":1}', b'{"Labels":{"a":1}}', b'{"a":1,"a":2}', b"\xff", b"nul"],
)
async def test_bad_json_is_400(client: Any, body: bytes) -> None:
    reply = await client.ask("POST", "/volumes/create", body, Content_Type=JSON)
    assert reply.status == 400
    assert b"invalid JSON" in reply.body


async def test_body_beyond_the_limit(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_JSON_BYTES", 10)
    reply = await client.ask("POST", "/volumes/create", b'{"Name":"aaaaaaa"}', Content_Type=JSON)
    assert reply.status == 413
    assert b"larger than 10 bytes" in reply.body


async def test_chunked_body(client: Any, engine: FakeEngine) -> None:
    client.send(
        b"POST /volumes/create HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"Nam\r\n8\r\ne":"vv"}\r\n0\r\n\r\n'
    )
    assert (await client.reply()).status == 201
    assert engine.arguments("volumes.create")["0"] == "vv"


async def test_create_without_a_body(client: Any) -> None:
    reply = await client.ask("POST", "/containers/create")
    assert reply.body == (b'{"message":"config cannot be empty in order to create a container"}\n')
    assert reply.status == 400


async def test_start_with_a_configuration(client: Any) -> None:
    reply = await client.ask("POST", "/containers/x/start", b'{"Memory":1}', Content_Type=JSON)
    assert reply.status == 400
    assert b"removed in v1.24" in reply.body
