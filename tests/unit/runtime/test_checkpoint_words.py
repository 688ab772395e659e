"""Unit tests of checkpoint and restore: what CRIU is told, and what it says; CRIU is a script."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import InternalError, InvalidArgumentError, UnsupportedError
from cais.runtime import arguments, checkpoint, criu, state
from cais.runtime.verbs import checkpointing

if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["true"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/data", "source": "/srv/data", "type": "bind", "options": ["rbind"]},
        {"destination": "/proc", "source": "proc", "type": "proc"},
    ],
    "linux": {
        "cgroupsPath": "/cais-unit/one",
        "namespaces": [
            {"type": "mount"},
            {"type": "cgroup"},
            {"type": "network", "path": "/proc/self/ns/net"},
        ],
    },
}
LOG = """(00.01) Info  (criu/x.c:1): hello
(00.02) Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
(00.03) Error (criu/vdso.c:613): vdso: Failed to fill self vdso symtable
(00.04) Error (criu/crtools.c:260): Could not initialize kernel features detection.
"""


class Criu:
    """A program that notes its words, and fails with ``LOG`` when told to."""

    def __init__(self, directory: Path, *, fails: bool = False) -> None:
        self.words_file = directory / "words"
        self.path = directory / "criu"
        log = directory / "log"
        log.write_text(LOG)
        script = f'#!/bin/sh\nprintf "%s\\n" "$@" >{self.words_file}\n'
        if fails:
            script += 'while [ "$1" != --work-dir ]; do shift; done; work=$2\n'
            script += f'while [ "$1" != --log-file ]; do shift; done; cp {log} $work/$2; exit 1\n'
        self.path.write_text(script)
        self.path.chmod(0o755)

    def words(self) -> list[str]:
        return self.words_file.read_text().splitlines()


def given(*words: str) -> Arguments:
    return arguments.parse([*words, "one"], checkpointing.CHECKPOINT.flags)


@pytest.fixture
def record(tmp_path: Path) -> state.Record:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(CONFIG))
    directory = state.reserve(str(tmp_path / "root"), "one")
    state.keep_documents(directory, str(bundle))
    return state.save(directory, "one", str(bundle), os.getpid(), 1)


def test_what_is_outside_is_named(tmp_path: Path, record: state.Record) -> None:
    program = Criu(tmp_path)
    checkpoint.dump(str(program.path), record, given("--image-path", str(tmp_path / "images")))
    words = program.words()
    assert words[:3] == ["dump", "--tree", str(os.getpid())]
    assert "--external=mnt[/data]:/data" in words
    inode = os.stat("/proc/self/ns/net").st_ino
    assert f"--external=net[{inode}]:extRootNetNS" in words
    assert "--manage-cgroups=soft" in words
    streams = json.loads((tmp_path / "images/descriptors.json").read_text())
    assert streams == [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]


def test_flags_are_passed_on(tmp_path: Path, record: state.Record) -> None:
    program = Criu(tmp_path)
    switches = (
        *("--leave-running", "--tcp-established", "--ext-unix-sk", "--shell-job"),
        *("--file-locks", "--auto-dedup", "--lazy-pages"),
    )
    (tmp_path / "images/before").mkdir(parents=True)
    values = ("--work-path", str(tmp_path / "work"), "--parent-path", "before")
    more = ("--page-server", "127.0.0.1:77", "--empty-ns", "network", "--status-fd", "1")
    images = ("--image-path", str(tmp_path / "images"))
    flags = given(*images, *switches, *values, *more, "--manage-cgroups-mode", "full")
    checkpoint.dump(str(program.path), record, flags)
    words = program.words()
    assert set(switches) <= set(words)
    text = " ".join(words)
    for part in (
        f"--work-dir {tmp_path}/work",
        "--track-mem --prev-images-dir before",
        "--page-server --address 127.0.0.1 --port 77",
        "--empty-ns net",
        "--manage-cgroups=full",
    ):
        assert part in text


def test_a_pre_dump_leaves_the_container_running(tmp_path: Path, record: state.Record) -> None:
    program = Criu(tmp_path)
    flags = given("--image-path", str(tmp_path / "images"), "--pre-dump")
    checkpoint.dump(str(program.path), record, flags)
    assert program.words()[0] == "pre-dump"
    assert "--track-mem" in program.words()


def test_a_failure_carries_the_reason_and_the_log(tmp_path: Path, record: state.Record) -> None:
    program = Criu(tmp_path, fails=True)
    with pytest.raises(InternalError) as failed:
        checkpoint.dump(str(program.path), record, given("--image-path", str(tmp_path / "images")))
    assert str(failed.value) == (
        "criu dump failed: vdso: Unexpected rt vDSO area bounds; Could not initialize kernel "
        f"features detection.\nlog file: {tmp_path}/images/dump.log"
    )


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("cais.json", {"init": True}, "--init"),
        (
            "config.json",
            {"process": {"args": ["true"], "cwd": "/", "terminal": True}},
            "a terminal",
        ),
    ],
)
def test_what_could_not_be_restored_is_not_written(
    tmp_path: Path, record: state.Record, name: str, change: dict[str, Any], what: str
) -> None:
    document = CONFIG if name == "config.json" else {}
    Path(record.directory, name).write_text(json.dumps(document | change))
    with pytest.raises(UnsupportedError, match=f"a container with {what} cannot be restored"):
        checkpoint.dump(str(Criu(tmp_path).path), record, given())
    assert not (tmp_path / "words").exists()


def test_without_criu_the_error_says_so(
    tmp_path: Path, record: state.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UnsupportedError, match='exec: "criu": executable file not found in \\$PATH'
    ):
        checkpoint.dump("criu", record, given("--image-path", str(tmp_path / "images")))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--parent-path", "/absolute"], "--parent-path must be relative"),
        (["--parent-path", "none"], "no such directory"),
        (["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT"),
        (["--manage-cgroups-mode", "other"], "Invalid manage-cgroups-mode value"),
        (["--empty-ns", "pid"], "namespace pid is not supported"),
    ],
)
def test_wrong_flags_are_refused(
    tmp_path: Path, record: state.Record, words: list[str], text: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        checkpoint.dump("criu", record, given("--image-path", str(tmp_path / "images"), *words))


def test_no_error_in_the_log_is_no_reason() -> None:
    assert criu.find_reason("(00.01) Info  (criu/x.c:1): hello\n") == ""
