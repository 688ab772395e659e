"""No operation of the specification is a blank 404 or a traceback."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from cais.api import unsupported
from cais.api.application import make_router
from cais.testing.fake_engine import FakeEngine

SPECIFICATION = Path(__file__).parents[4] / "shared/specs/docker-engine-api-v1.51.yaml"
VERBS = ("get", "put", "post", "delete", "head", "patch", "options")


def listed() -> list[list[str]]:
    text = files("cais.api").joinpath("data", "routes.json").read_text("utf-8")
    rows: list[list[str]] = json.loads(text)
    return rows


@pytest.mark.skipif(
    not SPECIFICATION.exists(), reason="the specification is not beside the project"
)
def test_list_is_complete() -> None:
    paths = yaml.safe_load(SPECIFICATION.read_text())["paths"]
    specified = {
        (verb.upper(), path) for path, verbs in paths.items() for verb in verbs if verb in VERBS
    }
    assert {(method, path) for method, path, _ in listed()} == specified
    assert len(listed()) == len(specified)


def test_what_must_exist_by_now_does() -> None:
    """The list of the first milestone: these must not fall to the refusals."""
    router = make_router(FakeEngine())  # type: ignore[arg-type]
    wanted = """
        GET /_ping|HEAD /_ping|GET /version|GET /info|GET /events|POST /auth
        POST /containers/create|GET /containers/json|GET /containers/x/json|POST /containers/prune
        DELETE /containers/x|GET /containers/x/top|GET /containers/x/logs|POST /containers/x/attach
        POST /containers/x/exec|POST /exec/x/start|POST /exec/x/resize|GET /exec/x/json
        GET /images/json|GET /images/x/json|GET /images/x/history|POST /images/x/tag
        DELETE /images/x|POST /images/load|GET /images/x/get|GET /images/get|POST /images/create
        GET /volumes|POST /volumes/create|GET /volumes/x|DELETE /volumes/x|POST /volumes/prune
        GET /networks|GET /networks/x"""
    verbs = "start stop kill restart pause unpause rename update resize wait"
    wanted += "".join(f"|POST /containers/x/{verb}" for verb in verbs.split())
    for line in wanted.replace("\n", "|").split("|"):
        if line.strip():
            method, path = line.split()
            handler, _ = router._find(method, path)
            assert "_refusal" not in handler.__qualname__, line  # type: ignore[attr-defined]


async def test_every_operation_answers_and_the_rest_by_name(client: Any) -> None:
    refused = 0
    for method, path, summary in listed():
        target = re.sub(r"\{\w+\}", "x", path)
        if (method, path) in {("GET", "/events"), ("POST", "/containers/{id}/wait")}:
            continue
        if path.endswith(("/attach", "/exec/{id}/start")):
            continue
        reply = await client.ask(method, f"/v1.51{target}")
        if method != "HEAD" and reply.status == 501 and summary.encode() in reply.body:
            refused += 1
            expected = f"{method} {target}: {summary} is not supported by this version of cais"
            assert json.loads(reply.body) == {"message": expected}
        assert reply.status != 404, (method, path)
    assert refused > 40


def test_slashes_in_names() -> None:
    paths = {route.path for route in unsupported.routes()}
    assert "/images/{name*}/push" in paths
    assert "/distribution/{name*}/json" in paths
