"""Unit tests of cais-runtime's command line: flags, signals, limits, state."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cais.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from cais.linux.process import start_ticks
from cais.runtime import arguments, example, features, state, verbs
from cais.runtime.arguments import DURATION, NUMBER, NUMBERS, SWITCH, TEXT
from cais.runtime.log import Log
from cais.runtime.verbs import ending, limiting, listing
from cais.spec.runtime import validate

FLAGS = (
    ("tty,t", SWITCH, "terminal"),
    ("env,e", TEXT, "environment"),
    ("bundle", TEXT, "bundle"),
    ("count", NUMBER, "count"),
    ("group,g", NUMBERS, "groups"),
    ("interval", DURATION, "interval"),
)


def test_flags_come_first_and_may_repeat() -> None:
    words = ["-t", "--env", "A=1", "-e", "B", "-bundle=/b", "id", "-t", "--", "x"]
    given = arguments.parse(words, FLAGS)
    assert given.has("tty")
    assert given.values("env") == ["A=1", "B"]
    assert given.text("bundle") == "/b"
    assert given.rest == ["id", "-t", "--", "x"]


def test_two_dashes_end_the_flags() -> None:
    assert arguments.parse(["-t", "--", "-x"], FLAGS).rest == ["-x"]


def test_a_switch_can_be_taken_back() -> None:
    assert not arguments.parse(["-t", "--tty=false"], FLAGS).has("tty")
    assert arguments.parse(["--tty=true"], FLAGS).has("tty")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["-x"], "flag provided but not defined: -x"),
        (["--env"], "flag needs an argument: -env"),
        (["--count", "abc"], 'invalid value "abc" for flag -count: parse error'),
        (
            ["-g", "a"],
            'invalid value "a" for flag -g: strconv.ParseInt: parsing "a": invalid syntax',
        ),
        (["--interval", "5"], 'invalid value "5" for flag -interval: parse error'),
        (["--tty=maybe"], 'invalid boolean value "maybe" for -tty: parse error'),
        (["---x"], "bad flag syntax: ---x"),
        (["--=x"], "bad flag syntax: --=x"),
    ],
)
def test_wrong_flags(words: list[str], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        arguments.parse(words, FLAGS)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("1m30s", 90), ("0.5s", 0.5), ("20ms", 0.02), ("1h", 3600)]
)
def test_durations(text: str, expected: float) -> None:
    assert arguments.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("usr1", 10), ("99", 99)]
)
def test_signals(text: str, number: int) -> None:
    assert ending.parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIGNOPE", "_DFL", "SIG_DFL", "\u0669", "99999999999", "-" + "9" * 5000]
)
def test_no_signals(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown signal"):
        ending.parse_signal(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--pids-limit", "-1", "--cpuset-cpus", "0-1"],
            {"pids": {"limit": -1}, "cpu": {"cpus": "0-1"}},
        ),
        (["--memory", "64M", "--memory-swap", "-1"], {"memory": {"limit": 64 << 20, "swap": -1}}),
        (["--cpu-quota", "-1", "--cpu-burst", "7"], {"cpu": {"quota": -1, "burst": 7}}),
        ([], {}),
    ],
)
def test_limits_become_resources(words: list[str], expected: dict[str, object]) -> None:
    assert limiting.resources(arguments.parse(words, limiting.UPDATE.flags)) == expected


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--memory", "abc"], "invalid value for memory: invalid size: 'abc'"),
        (
            ["--cpu-quota", "abc"],
            'invalid value for cpu-quota: strconv.ParseInt: parsing "abc": invalid syntax',
        ),
        (
            ["--cpu-share", "-1"],
            'invalid value for cpu-share: strconv.ParseUint: parsing "-1": invalid syntax',
        ),
        (["-r", "/nonexistent"], "open /nonexistent: no such file or directory"),
    ],
)
def test_wrong_limits(words: list[str], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        limiting.resources(arguments.parse(words, limiting.UPDATE.flags))
    assert str(refused.value) == text


def test_a_listing_of_ps_is_cut_down_to_the_container() -> None:
    listing_text = "USER  PID CMD\nroot    1 init\nroot   12 12 sleep\nroot  112 cat\n"
    assert listing.choose_processes(listing_text, [12]) == "USER  PID CMD\nroot   12 12 sleep\n"
    with pytest.raises(InvalidArgumentError, match="couldn't find PID field"):
        listing.choose_processes("USER\nroot\n", [12])


def test_the_example_documents_are_valid() -> None:
    for document in (example.config(), example.rootless_config()):
        validate(json.loads(json.dumps(document)))


def test_features_name_what_the_documents_may_say() -> None:
    document = features.document()
    assert document["ociVersionMin"] == "1.0.0"
    assert "rbind" in document["mountOptions"]
    assert "SCMP_ACT_ERRNO" in document["linux"]["seccomp"]["actions"]
    assert "SCMP_ARCH_X86_64" in document["linux"]["seccomp"]["archs"]


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


def test_documents_are_kept_from_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    directory = state.reserve(str(tmp_path / "root"), "one")
    state.keep_documents(directory, str(tmp_path))
    (tmp_path / "config.json").write_text("changed")
    assert (tmp_path / "root/one/config.json").read_text() == "{}"
    assert not (tmp_path / "root/one/cais.json").exists()


def test_state_survives_and_notices_another_process(tmp_path: Path) -> None:
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
        (["exec"], 1),
        (["nope"], 3),
        (["--nope"], 1),
        (["--rootless", "maybe", "list"], 1),
        (["--root", "/nonexistent", "delete", "--force", "x"], 0),
        (["create", "--help"], 0),
        (["help", "create"], 0),
        ([], 0),
    ],
)
def test_exit_codes(words: list[str], code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(words) == code
    assert bool(capfd.readouterr().err) is bool(code)


def test_errors_are_logged_for_callers_and_told_to_people(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    verbs.run(["--log", str(log), "--log-format", "json", "--root", "/no", "state", "x"])
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
    assert capfd.readouterr().err == "container does not exist\n"


def test_a_fault_of_ours_is_logged_like_any_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: str, container_id: str) -> None:
        raise KeyError(container_id)

    monkeypatch.setattr(state, "load", fail)
    log = tmp_path / "log"
    words = ["--log", str(log), "--log-format", "json", "exec", "box", "true"]
    assert verbs.run(words) == 255
    assert json.loads(log.read_text())["msg"] == "exec failed: internal error: KeyError: 'box'"
    assert "Traceback" not in capfd.readouterr().err
    assert verbs.run(["--debug", *words]) == 255
    assert "Traceback" in log.read_text()
    assert json.loads(log.read_text().splitlines()[-1])["level"] == "error"  # what engines read


_NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "the process is not an object"),
        ("null", "the process is not an object"),
        (_NESTED, "nested too deeply"),
        ('{"a":', "invalid JSON"),
    ],
)
def test_a_process_document_that_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    _save_running(tmp_path, "box")
    path = tmp_path / "process.json"
    path.write_text(text)
    assert verbs.run(["--root", str(tmp_path), "exec", "-p", str(path), "box"]) == 255
    told = capfd.readouterr().err
    assert str(path) in told
    assert reason in told
    assert "internal error" not in told


@pytest.mark.parametrize(
    "text", ["[]", '{"init_process_pid": 7}', '{"id": 1}', _NESTED, "", "\xff"]
)
def test_a_state_of_another_runtime(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    _save_running(tmp_path, "ours")
    foreign = tmp_path / "other"
    foreign.mkdir()
    (foreign / "state.json").write_bytes(text.encode("latin-1"))
    assert verbs.run(["--root", str(tmp_path), "state", "other"]) == 1
    told = capfd.readouterr().err
    assert f"{foreign}/state.json" in told
    assert "internal error" not in told
    assert verbs.run(["--root", str(tmp_path), "list", "-q"]) == 0
    listed = capfd.readouterr()
    assert listed.out == "ours\n"
    assert "load container other: " in listed.err


def _save_running(root: Path, container_id: str) -> None:
    directory = state.reserve(str(root), container_id)
    pid = os.getpid()
    (Path(directory) / "config.json").write_text(json.dumps(example.config()))
    state.save(directory, container_id, "/bundle", pid, start_ticks(pid))


def test_a_resources_document_that_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "resources.json"
    path.write_text(_NESTED)
    with pytest.raises(InvalidArgumentError, match="nested too deeply"):
        limiting.resources(arguments.parse(["-r", str(path)], limiting.UPDATE.flags))


def test_without_a_file_the_log_is_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    verbs.run(["--root", "/no", "state", "x"])
    assert 'level=error msg="container does not exist"' in capfd.readouterr().err


def test_a_log_needs_a_form_and_a_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid log-format: xml"):
        Log("", "xml")
    with pytest.raises(InvalidArgumentError, match="no such file or directory"):
        Log(str(tmp_path / "none/log"))


def test_steps_are_logged_on_demand(tmp_path: Path) -> None:
    for debug in (False, True):
        Log(str(tmp_path / "log"), debug=debug).step("one")
    assert (tmp_path / "log").read_text().count("level=debug msg=one") == 1
