"""runc and cais-runtime side by side: the same bundles, right and wrong words, one table.

Each step is run with both, in order, on a container of each; status, message and output must be
the same but for the program's name, times, pids and the version of the specification.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cais.testing.bundles import Bundle
from cais.testing.daemon import BIN
from cais.testing.isolation import remove_cgroups
from cais.testing.namespaces import Namespaces
from cais.testing.waiting import PATIENCE_S

if os.geteuid() != 0:
    pytest.skip("needs root", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)  # the first test walks the whole table, twice
ID = "parity"
_VERBS = (
    *("create", "run", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume"),
    *("update", "events", "checkpoint", "restore"),
)
# label -> words; "@" is the bundle, "#" a scratch directory. The order is the container's life.
STEPS: list[str] = [
    *("nope", "help nope", "--nope", "--log-format xml list", "--log /nonexistent/log list"),
    *(verb for verb in _VERBS),
    *(f"{verb} --nope {ID}" for verb in _VERBS),
    *(f"{verb} nosuch" for verb in _VERBS if verb not in ("create", "run")),
    *("start a b", "create a b", "kill a b c", "list extra", "spec extra", "features extra"),
    *("create --bundle", "create -b /nonexistent x", "create -b # x", "run -b # x"),
    *("create -b @ a/b", "create -b @ .", "create -b @ é", "create -b @ --preserve-fds abc x"),
    *("create -b @ --console-socket /nonexistent x", "run -b @ --console-socket /nonexistent x"),
    *("list", "list -q", "list -f json", "list -f yaml", "kill nosuch KILL", "kill nosuch NOPE"),
    *("delete --force nosuch", "exec nosuch true", "spec -b @", "spec -b /nonexistent"),
    f"create -b @ --pid-file #/pid {ID}",
    *(f"create -b @ {ID}", f"state {ID}", "list -q", "list -f json", f"exec {ID}"),
    *(f"exec --cwd foo {ID} true", f"exec -u a {ID} true", f"exec -u 1:b {ID} true"),
    *(f"exec -g a {ID} true", f"exec {ID} nosuch", f"exec -t -d {ID} true", f"exec -t {ID} true"),
    f"exec --console-socket /nonexistent {ID} true",
    *(f"exec -p /nonexistent {ID}", f"exec --cwd /nonexistent {ID} true"),
    *(f"exec {ID} sh -c exit\\ 7", f"exec {ID} sh -c kill\\ -9\\ $$", f"exec --env A=b {ID} env"),
    *(f"exec -u 7:8 -g 9 {ID} id", f"exec --no-new-privs {ID} grep NoNewPrivs /proc/self/status"),
    *(f"exec --cap CAP_SYS_PTRACE {ID} grep CapEff /proc/self/status",),
    *(f"ps -f json {ID}", f"ps -f yaml {ID}", f"ps {ID} -o user", f"ps {ID} -o user,pid"),
    *(f"pause {ID}", f"state {ID}", f"pause {ID}", f"exec {ID} true", f"start {ID}"),
    *(f"delete {ID}", f"kill {ID} 0", f"resume {ID}", f"resume {ID}"),
    *(f"update --pids-limit abc {ID}", f"update --memory abc {ID}", f"update --cpu-quota abc {ID}"),
    *(f"update --cpu-share abc {ID}", f"update --l3-cache-schema x {ID}"),
    *(
        f"update --mem-bw-schema x {ID}",
        f"update -r /nonexistent {ID}",
        f"update --memory 64M {ID}",
    ),
    *(f"update --kernel-memory 5M {ID}", f"update --kernel-memory-tcp 5M {ID}"),
    *(f"update --pids-limit 20 {ID}", f"update --cpu-share 100 --cpu-period 50000 {ID}"),
    *(f"events --interval 0s {ID}", f"events --interval abc {ID}", f"events --stats {ID}"),
    *(f"start {ID}", f"start {ID}", f"state {ID}", f"delete {ID}", f"kill {ID} NOPE"),
    *(f"kill {ID} 99", f"kill --all {ID} 0", f"checkpoint --page-server nowhere {ID}"),
    *(f"kill {ID} KILL", "(wait)", f"state {ID}", f"kill {ID} KILL", f"kill --all {ID} KILL"),
    *(f"start {ID}", f"exec {ID} true", f"ps -f json {ID}", f"pause {ID}", f"resume {ID}"),
    *(f"update --pids-limit 5 {ID}", f"events --stats {ID}", f"events {ID}"),
    *(f"checkpoint {ID}", f"delete {ID}", f"delete {ID}", f"state {ID}"),
]
# config.json changed: what (a path of members), to what
_BROKEN: list[tuple[str, Any]] = [
    ("process", None),
    ("process.args", None),
    ("process.args", ["nosuch"]),
    ("process.args", ["sh", "-c", "exit 3"]),
    ("process.args", ["sh", "-c", "kill -9 $$"]),
    ("process.cwd", "relative"),
    ("process.cwd", "/etc/passwd"),
    ("process.terminal", True),
    ("root.path", "elsewhere"),
    ("hostname", "another"),
    ("annotations", {"org.example": "value"}),
]
# Where we knowingly say more, or otherwise, than runc 1.1; everything else must be the same.
DIFFERENT = {
    "process.cwd='/etc/passwd'": "runc says what chdir(2) says before it is known to be a file",
    "process=None": "ours lists every fault of a document with its place",
    "process.args=None": "ours lists every fault of a document with its place",
    "process.cwd='relative'": "ours lists every fault of a document with its place",
}


CHANGED_IN_RUNC = frozenset(
    (
        *("exec parity", "exec -u a parity true", "exec -u 1:b parity true"),
        *("exec -u 7:8 -g 9 parity id", "process.args=['nosuch']", "run -b @ x", "list"),
    )
)
"""What runc words otherwise since 1.2; ours has the words of 1.1, which engines look for."""


@cache
def runc_is_newer() -> bool:
    """Say whether the runc here is not a 1.1 or older."""
    told = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", told)[:2]
    return (int(major), int(minor)) > (1, 1)


class Peer:
    """One of the two programs, with a bundle and a state directory of its own."""

    def __init__(self, name: str, directory: Path, namespaces: Namespaces) -> None:
        self.name = name
        self.directory = directory
        self.program = str(BIN / name) if name == "cais-runtime" else name
        self.bundle = Bundle(directory / "bundle", ID)
        self.bundle.process["args"] = ["sleep", "1000"]
        self.cgroup = f"cais-test-{os.getpid()}-{name}"
        self.bundle.linux["cgroupsPath"] = f"/{self.cgroup}/{ID}"
        self.bundle.save()
        self._enter = namespaces.enter

    def run(self, words: str) -> tuple[int, str, str]:
        """Run one command; return its status, message and output, without what differs."""
        named = words.replace("@", str(self.bundle.path)).replace("#", str(self.directory))
        parts = [part.replace("\0", " ") for part in named.replace("\\ ", "\0").split()]
        # Its output goes to files: a container would keep pipes open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                [*self._enter, self.program, "--root", str(self.directory / "state"), *parts],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=PATIENCE_S,
                check=False,
            )
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return done.returncode, self._message(texts[1]), self._output(texts[0])

    def _message(self, text: str) -> str:
        found = re.findall(r'level=error msg="?((?:[^"\\]|\\.)*)', text)
        message = found[-1] if found else text
        return self._plain(message.removesuffix("\\n"))

    def _output(self, text: str) -> str:
        if text.startswith("Incorrect Usage"):
            return text.partition("\n")[0]
        if text.startswith('{"type":'):
            return ",".join(sorted(json.loads(text)["data"]))
        try:
            document = json.loads(text)
        except ValueError:
            return self._plain(text)
        return self._plain(json.dumps(document, sort_keys=True))

    def _plain(self, text: str) -> str:
        text = text.replace(str(self.directory), "DIR").replace("cais-runtime", "runc")
        text = re.sub(r"2\d{3}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
        text = re.sub(r'("pid": )[1-9]\d*', r"\1PID", text)
        text = re.sub(r'"ociVersion": "[^"]*"', '"ociVersion": "V"', text)
        return re.sub(r"\[\d+\]|(?<=root) +\d+", "PIDS", text).strip()

    def close(self) -> None:
        self.run(f"delete --force {ID}")
        remove_cgroups(self.cgroup)


def key_of(path: str, value: object) -> str:
    return f"{path}={value!r}"


def change(peer: Peer, path: str, value: object) -> None:
    """Write the document with one member changed; None takes it out."""
    document = json.loads(json.dumps(peer.bundle.config))
    *parents, name = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    if value is None:
        place.pop(name)
    else:
        place[name] = value
    (peer.bundle.path / "config.json").write_text(json.dumps(document))


def walk(peer: Peer) -> list[tuple[str, tuple[int, str, str]]]:
    """Run every step; return what each did."""
    results = []
    for step in STEPS:
        if step == "(wait)":
            while '"stopped"' not in peer.run(f"state {ID}")[2]:
                time.sleep(0.05)
            continue
        results.append((step, peer.run(step)))
    for path, value in _BROKEN:
        change(peer, path, value)
        detached = "-d " if path in ("process.terminal", "hostname", "annotations") else ""
        results.append((key_of(path, value), peer.run(f"run {detached}-b @ {ID}")))
        results.append((f"state with {key_of(path, value)}", peer.run(f"state {ID}")))
        peer.run(f"delete --force {ID}")
    return results


def log_of(peer: Peer, words: str) -> list[tuple[str, str]]:
    """Return level and text of what a command writes to a JSON log; stderr has the text too."""
    _, message, _ = peer.run(f"--log #/log --log-format json {words}")
    entries = list(map(json.loads, (peer.directory / "log").read_text().splitlines()))
    (peer.directory / "log").unlink()
    assert all(set(entry) == {"level", "msg", "time"} for entry in entries)
    told = [(entry["level"], entry["msg"].replace("cais-runtime", "runc")) for entry in entries]
    return [*told, ("stderr", message)]


@cache
def results() -> dict[str, list[tuple[str, tuple[int, str, str]]]]:
    found = {}
    for name in ("runc", "cais-runtime"):
        with tempfile.TemporaryDirectory() as directory, Namespaces() as namespaces:
            (Path(directory) / "bundle").mkdir()
            peer = Peer(name, Path(directory), namespaces)
            try:
                found[name] = walk(peer)
            finally:
                peer.close()
    return found


@pytest.mark.parametrize(
    "words", ["state nosuch", "exec nosuch true", "create -b /nonexistent x", "run -b @ x", "list"]
)
def test_both_log_alike_for_engines(words: str, tmp_path: Path) -> None:
    told = {}
    with Namespaces() as namespaces:
        for name in ("runc", "cais-runtime"):
            (tmp_path / name / "bundle").mkdir(parents=True)
            peer = Peer(name, tmp_path / name, namespaces)
            change(peer, "process.args", ["nosuch"])
            told[name] = log_of(peer, words)
            peer.close()
    if runc_is_newer() and words in CHANGED_IN_RUNC:
        assert told["cais-runtime"]
        return
    assert told["cais-runtime"] == told["runc"]


LABELS = [step for step in STEPS if step != "(wait)"]
LABELS += [label for case in _BROKEN for label in (key_of(*case), f"state with {key_of(*case)}")]


@pytest.mark.parametrize("number", range(len(LABELS)), ids=LABELS)
def test_both_answer_alike(number: int) -> None:
    label, expected = results()["runc"][number]
    same_label, given = results()["cais-runtime"][number]
    assert label == same_label == LABELS[number]
    if runc_is_newer() and label in CHANGED_IN_RUNC:
        assert given[0] == expected[0]
        return
    if label in DIFFERENT:
        assert given[0] == expected[0], f"even where texts differ: {given}, runc: {expected}"
        assert given != expected, f"{label}: the same by now, no exception needed"
        return
    assert given == expected
