"""Paths, versions and failures, as answers."""

import logging
from typing import Any

import pytest

from cais import errors
from cais.api.errors import status_of
from cais.testing.fake_engine import FakeEngine


async def message(client: Any, method: str, target: str, **headers: str) -> tuple[int, str]:
    reply = await client.ask(method, target, **headers)
    assert reply.headers["content-type"] == "application/json"
    document = __import__("json").loads(reply.body)
    assert set(document) == {"message"}
    return reply.status, document["message"]


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        (
            "/v1.99/info",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.51",
        ),
        (
            "/v1.23/info",
            400,
            (
                "client version 1.23 is too old. Minimum supported API version is 1.24,"
                " please upgrade your client to a newer version"
            ),
        ),
        ("/v1..5/info", 400, "invalid API version: 1..5"),
        ("/nowhere", 404, "page not found"),
        ("/v1.50", 404, "page not found"),
        ("/v1.50/nowhere", 404, "page not found"),
        ("/info/", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/containers/a%00b/json", 400, "bad request: control character in the path"),
        ("/containers/%zz/json", 400, "bad request: malformed escape in the path"),
        ("/containers/%ff/json", 400, "bad request: the path is not UTF-8"),
        ("/info?a=%zz", 400, "invalid URL escape in the query"),
        ("ftp://x/info", 400, "bad request: the target is not a path"),
    ],
)
async def test_path_that_names_nothing(client: Any, target: str, status: int, text: str) -> None:
    assert await message(client, "GET", target) == (status, text)


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/containers/../_ping", "/_ping"),
        ("//v1.44//containers/json?a=b", "/v1.44/containers/json?a=b"),
        ("/v1.41/containers//foo/json", "/v1.41/containers/foo/json"),
        ("/containers/%2ffoo/json", "/containers/foo/json"),
        ("/containers/%2e%2e/a%20b", "/a%20b"),
        ("/../../x", "/x"),
        ("//", "/"),
        ("/./x/", "/x/"),
    ],
)
async def test_unclean_path_is_redirected(client: Any, target: str, location: str) -> None:
    reply = await client.ask("GET", target)
    assert (reply.status, reply.headers["location"]) == (301, location)


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "get", "BREW"])
async def test_method_that_is_not_there_is_no_page(client: Any, method: str) -> None:
    assert await message(client, method, "/info") == (404, "page not found")


async def test_escape_is_decoded_once(client: Any, engine: FakeEngine) -> None:
    await client.ask("GET", "/containers/a%2541/json")
    assert engine.arguments("containers.inspect")["0"] == "a%41"


async def test_image_names_hold_slashes(client: Any, engine: FakeEngine) -> None:
    await client.ask("GET", "/v1.44/images/localhost:5000/a/b:tag/json")
    assert engine.arguments("images.inspect")["0"] == "localhost:5000/a/b:tag"
    await client.ask("GET", "/images/docker.io%2Flibrary%2Fbusybox/json")
    assert engine.arguments("images.inspect")["0"] == "docker.io/library/busybox"


async def test_absolute_target(client: Any) -> None:
    assert (await client.ask("GET", "http://docker/v1.40/_ping")).body == b"OK"


async def test_every_answer_says_what_the_daemon_is(client: Any) -> None:
    for target in ("/_ping", "/nowhere", "/v9.9/x", "/events"):
        client.request("GET", target)
        headers = (await client.reply_head()).headers
        assert headers["api-version"] == "1.51"
        assert headers["ostype"] == "linux"
        assert headers["docker-experimental"] == "false"
        assert headers["server"].startswith("Cais/")
        if "content-length" in headers:
            await client.reader.readexactly(int(headers["content-length"]))


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.InvalidArgumentError("x"), 400),
        (errors.UnauthenticatedError("x"), 401),
        (errors.ForbiddenError("x"), 403),
        (errors.NotFoundError("x"), 404),
        (errors.ConflictError("x"), 409),
        (errors.AlreadyExistsError("x"), 409),
        (errors.ExhaustedError("x"), 500),
        (errors.DeadlineError("x"), 500),
        (errors.DataLossError("x"), 500),
        (errors.InternalError("x"), 500),
        (errors.UnsupportedError("x"), 501),
        (errors.UnavailableError("x"), 503),
    ],
)
async def test_failures_have_statuses(
    client: Any, engine: FakeEngine, failure: errors.CaisError, status: int
) -> None:
    engine.failures["containers.inspect"] = failure
    assert await message(client, "GET", "/containers/x/json") == (status, "x")


def test_every_class_of_failure_is_in_the_table() -> None:
    internal = {"ExhaustedError", "DeadlineError", "DataLossError", "InternalError"}
    for kind in errors.CaisError.__subclasses__():
        if kind.__module__ == "cais.errors":
            assert (status_of(kind("x")) == 500) == (kind.__name__ in internal), kind


async def test_not_modified_has_no_body(client: Any, engine: FakeEngine) -> None:
    engine.failures["lifecycle.start"] = errors.NotModifiedError("it runs")
    reply = await client.ask("POST", "/containers/x/start")
    assert (reply.status, reply.body) == (304, b"")
    assert (await client.ask("GET", "/_ping")).body == b"OK"


async def test_fault_of_ours_is_logged_and_told_without_a_traceback(
    client: Any, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.failures["containers.inspect"] = RuntimeError("boom")
    with caplog.at_level(logging.ERROR):
        assert await message(client, "GET", "/containers/x/json?secret=1") == (500, "boom")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text.splitlines()[0]
