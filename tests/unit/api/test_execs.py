"""Exec: what is an HTTP error and what is told in the stream."""

from typing import Any

import pytest

from cais.engine.errors import CommandLaunchError, ExecNotFoundError
from cais.testing.fake_engine import EXEC_ID, FakeEngine

JSON = "application/json"
START = f"/v1.44/exec/{EXEC_ID}/start"


async def test_unknown_exec_is_an_error(client: Any, engine: FakeEngine) -> None:
    engine.failures["execs.inspect"] = ExecNotFoundError("x")
    reply = await client.ask("POST", START, b"{}", Content_Type=JSON)
    assert (reply.status, reply.body) == (404, b'{"message":"No such exec instance: x"}\n')


@pytest.mark.parametrize(
    ("tty", "told"),
    [("false", b"\1\0\0\0\0\0\0\x0cnot found.\r\n"), ("true", b"not found.\r\n")],
)
async def test_launch_failure_is_told_in_the_stream(
    client: Any, engine: FakeEngine, tty: str, told: bytes
) -> None:
    engine.failures["execs.start"] = CommandLaunchError("not found.", 127)
    client.request("POST", START, b'{"Tty":%s}' % tty.encode(), Content_Type=JSON, Upgrade="tcp")
    head = await client.reply_head()
    assert head.status == 101
    kind = "raw" if tty == "true" else "multiplexed"
    assert head.headers["content-type"] == f"application/vnd.docker.{kind}-stream"
    assert await client.rest() == told


async def test_launch_failure_of_a_detached_one_is_an_error(
    client: Any, engine: FakeEngine
) -> None:
    engine.failures["execs.start"] = CommandLaunchError("not found.", 127)
    reply = await client.ask("POST", START, b'{"Detach":true}', Content_Type=JSON)
    assert reply.status == 400


async def test_detached(client: Any, engine: FakeEngine) -> None:
    reply = await client.ask("POST", START, b'{"Detach":true}', Content_Type=JSON)
    assert reply.status == 200
    assert engine.arguments("execs.start")["detach"] is True


@pytest.mark.parametrize("size", ["1", "[1]", "[1,-1]", '["a",1]', "[1,4294967296]", "[true,1]"])
async def test_console_size_refuses(client: Any, size: str) -> None:
    reply = await client.ask(
        "POST", START, b'{"ConsoleSize":%s}' % size.encode(), Content_Type=JSON
    )
    assert reply.status == 400


async def test_console_size(client: Any, engine: FakeEngine) -> None:
    body = b'{"Detach":true,"ConsoleSize":[24,80]}'
    await client.ask("POST", START, body, Content_Type=JSON)
    assert engine.arguments("execs.start")["console_size"] == (24, 80)
    await client.ask("POST", START.replace("1.44", "1.41"), body, Content_Type=JSON)
    assert engine.arguments("execs.start")["console_size"] is None
