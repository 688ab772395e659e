"""The ``platform`` of image requests: read from 1.48 and 1.49 on, and never ignored there."""

from typing import Any
from urllib.parse import quote

import pytest

from cais.spec.platform import Platform
from cais.testing.fake_engine import FakeEngine

ARM = quote('{"architecture":"arm64","os":"linux"}')
WANTED = Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("method", "path", "call", "argument", "since"),
    [
        ("GET", "/images/x/json?", "images.inspect", "1", 49),
        ("GET", "/images/x/history?", "images.history", "1", 48),
        ("GET", "/images/x/get?", "images.save", "1", 48),
        ("GET", "/images/get?names=x&", "images.save", "1", 48),
        ("POST", "/images/load?", "images.load", "platform", 48),
    ],
)
async def test_the_platform_is_passed_on(
    client: Any, engine: FakeEngine, method: str, path: str, call: str, argument: str, since: int
) -> None:
    for version, wanted in ((since - 1, None), (since, WANTED)):
        engine.calls.clear()
        await client.ask(method, f"/v1.{version}{path}platform={ARM}")
        assert engine.arguments(call)[argument] == wanted


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("platform=linux/arm64", b"failed to parse platform"),
        (f"platform={ARM}&platform={ARM}", b"multiple platform parameters not supported"),
        (f"platform={ARM}&manifests=1", b"manifests and platform options cannot both be set"),
    ],
)
async def test_what_is_no_platform_is_refused(client: Any, query: str, said: bytes) -> None:
    reply = await client.ask("GET", f"/v1.51/images/x/json?{query}")
    assert reply.status == 400
    assert said in reply.body
