"""Unit tests of cais-runtime's command line: flags, signals, limits, state."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cais.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from cais.runtime import arguments, reports, state, verbs
from cais.spec.runtime import validate

if TYPE_CHECKING:
    from pathlib import Path

SWITCHES = {"tty": "tty", "t": "tty"}
OPTIONS = {"env": "env", "e": "env", "bundle": "bundle"}


def test_flags_come_first_and_may_repeat() -> None:
    given = arguments.parse(
        ["-t", "--env", "A=1", "-e", "B", "--bundle=/b", "id", "-t", "--", "x"], SWITCHES, OPTIONS
    )
    assert given.has("tty")
    assert given.values("env") == ["A=1", "B"]
    assert given.text("bundle") == "/b"
    assert given.rest == ["id", "-t", "--", "x"]


def test_two_dashes_end_the_flags() -> None:
    assert arguments.parse(["-t", "--", "-x"], SWITCHES, OPTIONS).rest == ["-x"]


@pytest.mark.parametrize("words", [["--nope"], ["--env"], ["-x"]])
def test_wrong_flags(words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError):
        arguments.parse(words, SWITCHES, OPTIONS)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("usr1", 10), ("64", 64)]
)
def test_signals(text: str, number: int) -> None:
    assert reports.parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "_DFL", "SIG_DFL", "٩"])
def test_no_signals(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        reports.parse_signal(text)


def test_limits_become_resources() -> None:
    flags = {name: name for name in reports.LIMITS}
    given = arguments.parse(["--pids-limit", "-1", "--cpuset-cpus", "0-1"], {}, flags)
    assert reports.resources(given) == {"pids": {"limit": -1}, "cpu": {"cpus": "0-1"}}


def test_the_example_document_is_valid() -> None:
    validate(json.loads(json.dumps(reports.example_config())))


def test_an_id_is_reserved_once(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    assert state.reserve(root, "one") == f"{root}/one"
    with pytest.raises(AlreadyExistsError):
        state.reserve(root, "one")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é"])
def test_ids_are_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        state.reserve(str(tmp_path), name)
    with pytest.raises(InvalidArgumentError):
        state.load(str(tmp_path), name)


def test_state_survives_and_notices_another_process(tmp_path: Path) -> None:
    from cais.linux.process import start_ticks

    directory = state.reserve(str(tmp_path), "one")
    pid = os.getpid()
    state.save(directory, "one", "/bundle", pid, start_ticks(pid))
    assert state.load(str(tmp_path), "one").is_alive()
    state.save(directory, "one", "/bundle", pid, start_ticks(pid) + 1)
    record = state.load(str(tmp_path), "one")
    assert not record.is_alive()
    assert record.status() == "stopped"
    record.remove()
    with pytest.raises(NotFoundError):
        state.load(str(tmp_path), "one")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--root", "/nonexistent", "state", "x"], 1),
        (["--root", "/nonexistent", "exec", "x", "true"], 255),
        (["nope"], 1),
        (["--root", "/nonexistent", "delete", "--force", "x"], 0),
        ([], 0),
    ],
)
def test_exit_codes(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(words) == code
    output = capsys.readouterr()
    assert bool(output.err) is bool(code)


def test_errors_are_logged_for_callers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    verbs.run(["--log", str(log), "--log-format", "json", "--root", "/no", "state", "x"])
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
