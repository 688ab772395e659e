"""Who a client says its user is, at a registry: what cannot be read is refused, or nobody."""

import base64
import json
from typing import Any

import pytest

from cais.registry.credentials import ANONYMOUS, Credentials
from cais.testing.fake_engine import FakeEngine

JSON = {"Content_Type": "application/json"}
PAIR = base64.b64encode(b"jane:se:cret").decode()


async def test_a_pair_stands_for_name_and_password(client: Any, engine: FakeEngine) -> None:
    await client.ask("POST", "/auth", json.dumps({"auth": PAIR}).encode(), **JSON)
    assert engine.arguments("transfers.log_in")["1"] == Credentials("jane", "se:cret")


@pytest.mark.parametrize("auth", ["x", "QQ", "\u00e9"])
async def test_a_pair_that_cannot_be_read(client: Any, engine: FakeEngine, auth: str) -> None:
    """In a header it is nobody's, as with Docker."""
    document = json.dumps({"auth": auth}).encode()
    reply = await client.ask("POST", "/auth", document, **JSON)
    assert reply.status == 400
    assert json.loads(reply.body)["message"] == "invalid auth configuration: auth is not base64"
    header = base64.urlsafe_b64encode(document).decode()
    await client.ask("GET", "/distribution/x/json", X_Registry_Auth=header)
    assert engine.arguments("transfers.describe")["1"] == ANONYMOUS
