"""What engines read of a runtime: its version, and the reason of a failure in its JSON log.

The same documents under runc. Its words differ between versions and say less than ours in places;
compared is what callers look for: the status, one last line of level ``error``, which is told on
standard error too, and the words that podman and dockerd make an exit code of.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from test_runtime_parity import ID, Peer

from cais.testing.daemon import BIN
from cais.testing.namespaces import Namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Document = dict[str, Any]

if os.geteuid() != 0:
    pytest.skip("needs root", allow_module_level=True)

NAMES = ("runc", "cais-runtime")


def process(name: str, value: object) -> Callable[[Document], None]:
    return lambda document: document["process"].__setitem__(name, value)


def linux(name: str, value: object) -> Callable[[Document], None]:
    return lambda document: document["linux"].__setitem__(name, value)


def mount(**entry: object) -> Callable[[Document], None]:
    return lambda document: document["mounts"].append(entry)


def network(path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        entries = [n for n in document["linux"]["namespaces"] if n["type"] != "network"]
        document["linux"]["namespaces"] = [*entries, {"type": "network", "path": path}]

    return change


def hook(point: str, *args: str) -> Callable[[Document], None]:
    entry = {"path": args[0], "args": list(args)}
    return lambda document: document.__setitem__("hooks", {point: [entry]})


FAILURES: list[tuple[str, Callable[[Document], object], str]] = [
    ("no-program", process("args", ["/nosuch"]), r'exec: "/nosuch": .*no such file or directory'),
    ("not-in-path", process("args", ["nosuch"]), r'"nosuch": executable file not found in \$PATH'),
    ("no-permission", process("args", ["/etc/passwd"]), r'"/etc/passwd": permission denied'),
    ("a-directory", process("args", ["/etc"]), r'"/etc": (permission denied|is a directory)'),
    ("no-arguments", process("args", []), r"args:? must not be empty"),
    ("no-root", lambda document: document["root"].__setitem__("path", "none"), "invalid rootfs"),
    ("root-a-file", lambda d: d["root"].__setitem__("path", "config.json"), "not a directory"),
    ("cwd-a-file", process("cwd", "/etc/passwd"), "/etc/passwd(:| is) not a directory"),
    ("no-source", mount(destination="/x", source="/no", type="bind", options=["bind"]), "/no: no"),
    ("no-file-system", mount(destination="/x", source="x", type="nopefs"), "no such device"),
    (
        "wrong-option",
        mount(destination="/x", source="x", type="tmpfs", options=["nope=1"]),
        'mounting "x" to rootfs at "/x": .*nope=1: invalid argument',
    ),
    (
        "a-directory-on-a-file",
        mount(destination="/etc/passwd", source="/tmp", type="bind", options=["bind"]),
        'mounting "/tmp" to rootfs at "/etc/passwd": .*not a directory',
    ),
    ("over-proc", mount(destination="/proc/self", source="/tmp", options=["bind"]), "inside /proc"),
    (
        "no-such-sysctl",
        linux("sysctl", {"net.nope": "1"}),
        r"open (/proc|.*:proc/\.)/sys/net/nope: no such",
    ),
    (
        "wrong-sysctl",
        linux("sysctl", {"net.ipv4.ip_forward": "x"}),
        r"write (/proc|.*:proc/\.)/sys/net/ipv4/ip_forward: invalid argument",
    ),
    ("not-our-sysctl", linux("sysctl", {"kernel.nope": "1"}), "not in a separate kernel namespace"),
    ("no-namespace", network("/no/net"), "namespace .*/no/net: no such file or directory"),
    ("another-namespace", network("/proc/self/ns/uts"), "pipe: EOF|not a network name"),
    ("no-namespace-at-all", network("/etc/passwd"), "pipe: EOF|not a network namespace"),
    (
        "wrong-limit",
        linux("resources", {"cpu": {"cpus": "999"}}),
        r"write .*cpuset\.cpus: (numerical result out of range|invalid argument)",
    ),
    ("not-a-limit", linux("resources", {"pids": {"limit": 1 << 60}}), r"pids\.max: .*argument"),
    ("too-little", linux("resources", {"memory": {"limit": 4096}}), "memory limit"),
    ("no-seccomp-action", linux("seccomp", {"defaultAction": "SCMP_ACT_NOPE"}), "SCMP_ACT_NOPE"),
    ("no-label", process("selinuxLabel", "a:b:c:d"), "selinux is disabled or not supported"),
    ("no-hook", hook("createRuntime", "/no/hook"), "hook #0: fork/exec /no/hook: no such file"),
    (
        "bad-hook",
        hook("prestart", "/bin/sh", "-c", "echo why >&2; exit 3"),
        "status 3.*stderr: why",
    ),
    ("bad-variable", process("env", ["NONE"]), 'invalid environment variable: ("NONE"|missing)'),
    ("no-json", lambda document: document.__setitem__("process", "\0"), "process"),
]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Peer]]:
    with Namespaces() as namespaces:
        made = []
        for name in NAMES:
            directory: Path = tmp_path_factory.mktemp(name)
            (directory / "bundle").mkdir()
            made.append(Peer(name, directory, namespaces))
        yield made
        for peer in made:
            peer.close()


def refused(peer: Peer, change: Callable[[Document], object]) -> tuple[int, str, list[Document]]:
    """Return the status of a run, what standard error has, and the log."""
    document = json.loads(json.dumps(peer.bundle.config))
    document["process"]["args"] = ["true"]
    change(document)
    (peer.bundle.path / "config.json").write_text(json.dumps(document))
    log = peer.directory / "log"
    status, message, _ = peer.run(f"--log #/log --log-format json run --bundle @ {ID}")
    entries = list(map(json.loads, log.read_text().splitlines()))
    log.unlink()
    return status, message, entries


@pytest.mark.parametrize(
    ("change", "words"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES]
)
def test_the_reason_of_a_failure_is_the_last_line_of_the_log(
    peers: list[Peer], change: Callable[[Document], object], words: str
) -> None:
    for peer in peers:
        status, message, entries = refused(peer, change)
        last = entries[-1]
        assert (status, last["level"], set(last)) == (1, "error", {"level", "msg", "time"})
        assert re.search(words, last["msg"]), f"{peer.name}: {last['msg']}"
        assert peer._plain(last["msg"]) in message
        assert peer.run(f"state {ID}")[0] == 1


@pytest.mark.parametrize("program", ["runc", str(BIN / "cais-runtime")])
def test_the_version_and_the_specification_are_told(program: str) -> None:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, check=True, cwd="/"
    )
    assert re.match(r"(cais-runtime|runc) version \d+\.\d+\.\d+", done.stdout)
    assert re.search(r"(?m)^spec: \d+\.\d+\.\d+", done.stdout)
    assert done.stderr == ""
