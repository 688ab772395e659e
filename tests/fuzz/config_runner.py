"""Feed mutated documents to the runtime: ``python config_runner.py SEED COUNT NAME``.

Each ``config.json`` must end in an error the runtime raises on purpose, or in a container that is
what its document says, as ``/proc`` shows it from outside before its program begins. What starts
is given a mutated process to execute or mutated limits, by the command. Nothing may be left.
Started by ``test_config_fuzz`` in namespaces of its own; prints one JSON line: how many documents
ended how, and for each fault the number that makes the document again.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config_mutations import (
    DEVICE,
    NEIGHBOUR,
    OTHER_USER,
    mutate,
    mutate_process,
    mutate_resources,
    seeds,
)

from cais.errors import CaisError
from cais.linux import mount, process, user_namespaces
from cais.linux.netlink import route
from cais.runtime import container as runtime
from cais.runtime import state, verbs
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end, wait
from cais.testing.isolation import cgroups_named, children, left_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.runtime.launch import Running

NAMESPACES = {
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
_NEIGHBOUR = (
    *("unshare", "--net", "--ipc", "--uts", "--cgroup", "--time", "--mount"),
    *("--pid", "--fork", "--kill-child"),
)
_PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
_WRITABLE = ("/proc", "/sys/fs/cgroup")  # for the runtime
CAPABILITY_SETS = {"bounding": "CapBnd", "permitted": "CapPrm", "effective": "CapEff"}
_PYTHON = re.compile(r"\b(?:[A-Z]\w+Error|Traceback|object has no attribute|NoneType)\b")
_BARE = frozenset(os.strerror(code).lower() for code in errno.errorcode)
_ROUND = 500  # documents that share one root directory
_KILLED = 128 + signal.SIGKILL
_NO_STATUS = 99
MAX_FAULTS = 20
_PATIENCE_S = 300  # three hundred hooks in half a processor


def main(seed: int, count: int, name: str) -> int:
    """Run ``count`` documents from number ``seed`` on, as containers of this name."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    documents = seeds()
    _open_namespaces()
    with _place() as place:
        before = left_behind()
        for number in range(seed, seed + count):
            bundle = _bundle_for(number - seed, Path(place), name)
            text = mutate(random.Random(number), documents)
            (bundle.path / "config.json").write_bytes(text)
            if b"netDevices" in text:
                _ensure_device(number)
            outcome, wrong = _try(bundle, text, number)
            wrong += _left(before)
            outcomes[outcome] += 1
            faults += [f"document {number}: {each}" for each in wrong]
            if len(faults) >= MAX_FAULTS:
                break
    faults += [f"left: {path}" for path in cgroups_named(name)]
    report = {"outcomes": outcomes, "commands": _commands, "faults": faults}
    sys.stdout.write(json.dumps(report))
    return bool(faults)


@contextmanager
def _place() -> Iterator[str]:
    """Give a directory; whatever else a document may name of the host's files is read-only."""
    with tempfile.TemporaryDirectory() as place:
        fd = mount.new_mount("tmpfs")
        mount.place_at(fd, place)
        os.close(fd)
        for path in ("/", *_WRITABLE, place):
            bits = mount.MOUNT_ATTR_RDONLY
            change = {"set_bits": bits} if path == "/" else {"clear_bits": bits}
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            mount.set_attributes(fd, recursive=True, **change)
            os.close(fd)
        try:
            yield place
        finally:
            mount.unmount(place, detach=True)
            fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
            mount.set_attributes(fd, clear_bits=mount.MOUNT_ATTR_RDONLY)
            os.close(fd)


def _open_namespaces() -> None:
    """Open the namespaces that documents name, where they name them."""
    neighbour = subprocess.Popen([*_NEIGHBOUR, "sh", "-c", "echo; cat"], **_PIPES)
    assert neighbour.stdin is not None
    assert neighbour.stdout is not None
    neighbour.stdout.readline()
    (inside,) = Path(f"/proc/{neighbour.pid}/task/{neighbour.pid}/children").read_text().split()
    for kind, place in NEIGHBOUR.items():
        _open_at(place, f"/proc/{inside}/ns/{NAMESPACES[kind]}")
    ids = [(0, 200000, 65536)]
    _move(user_namespaces.make_user_namespace(ids, ids), OTHER_USER)
    _neighbours.append(neighbour)


def _open_at(place: str, path: str) -> None:
    _move(os.open(path, os.O_RDONLY | os.O_CLOEXEC), place)


def _move(fd: int, place: str) -> None:
    os.dup2(fd, int(os.path.basename(place)), inheritable=False)
    os.close(fd)


def _ensure_device(number: int) -> None:
    """Make the device that documents name, unless the last container left it."""
    with route.RouteSocket() as links:
        if links.find_link(DEVICE) is None:
            with open("/proc/self/ns/net", "rb") as here:
                mac = f"02:00:00:00:{number >> 8 & 255:02x}:{number & 255:02x}"
                peer = f"peer{number}"
                links.batch(
                    [
                        route.new_veth(
                            DEVICE, peer, peer_netns_fd=here.fileno(), peer_mac=mac, mtu=1500
                        )
                    ]
                )


def _bundle_for(index: int, place: Path, name: str) -> Bundle:
    """Return the bundle of this round; mount points the documents asked for pile up in its root."""
    directory = place / str(index // _ROUND)
    if index % _ROUND == 0:
        last = place / str(index // _ROUND - 1)
        subprocess.run(["rm", "-rf", last], check=True)  # may be too deep for Python's
        _current[:] = [Bundle(directory, name)]
    return _current[0]


_current: list[Bundle] = []
_neighbours: list[subprocess.Popen[bytes]] = []
_commands: Counter[str] = Counter()  # what came of those given to containers that started


def _try(bundle: Bundle, text: bytes, number: int) -> tuple[str, list[str]]:
    fifo = bundle.path / "hold"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    hold_fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    with Capture() as capture:
        try:
            launch = runtime.begin(
                bundle.id, str(bundle.path), stdio=capture.stdio, hold_fd=hold_fd
            )
            running = wait(launch, _PATIENCE_S)
        except CaisError as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - which is what this looks for
            return "fault", [f"{type(error).__name__}: {error}"]
        finally:
            os.close(hold_fd)
            _destroy_after_failure(bundle)
        return "started", _check(bundle, running, json.loads(text), number)


def _destroy_after_failure(bundle: Bundle) -> None:
    if sys.exc_info()[0] is not None:
        bundle.destroy()


def _refusal(error: CaisError) -> tuple[str, list[str]]:
    kind = "failed" if isinstance(error, LaunchError) else "refused"
    return kind, _wrong_words(str(error))


def _wrong_words(text: str) -> list[str]:
    wrong = []
    if _PYTHON.search(text) or "internal error" in text:
        wrong.append(f"an error of Python's: {text}")
    if not text.strip() or text.lower() in _BARE:
        wrong.append(f"an error that does not say of what: {text!r}")
    return wrong


def _check(bundle: Bundle, running: Running, document: dict[str, Any], number: int) -> list[str]:
    wrong = []
    try:
        wrong += _wrong_identity(running.pid, document)
        wrong += _wrong_places(running.pid, document)
    except FileNotFoundError as error:
        wrong.append(f"it has ended: {error}")
    wrong_command = _give_command(bundle, running, number)
    signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
    _end_executed({running.pid})  # the first process of a pid namespace waits for those in it
    code = end(running)
    was_short = runtime.destroy(bundle.id, str(bundle.path))
    if was_short:  # the memory it is allowed was too little to wait in
        return wrong_command
    wrong += wrong_command
    return [*wrong, *([] if code == _KILLED else [f"it ended with {code} by itself"])]


def _give_command(bundle: Bundle, running: Running, number: int) -> list[str]:
    """Have a mutated process executed in the container, or give it mutated limits."""
    root, log, path = (str(bundle.path / name) for name in ("state", "log", "part.json"))
    verb, option, make = random.Random(number).choice(_GIVEN)
    Path(path).write_bytes(make(random.Random(number), seeds()))
    Path(log).unlink(missing_ok=True)
    directory = state.reserve(root, bundle.id)
    try:
        state.keep_documents(directory, str(bundle.path))
        state.save(
            *(directory, bundle.id, str(bundle.path)),
            *(running.pid, process.start_ticks(running.pid)),
        )
        words = ["--root", root, "--log", log, "--log-format", "json", verb, *option]
        code = _run_apart([*words, path, bundle.id])
    except OSError:  # it has ended, which is told elsewhere
        return []
    finally:
        state.discard(directory)
    _commands[f"{verb} {'refused' if code else 'done'}"] += 1
    if code == 0:
        return []
    lines = Path(log).read_text().splitlines()
    said = [entry["msg"] for entry in map(json.loads, lines) if entry["level"] == "error"]
    wrong = [each for text in said or [""] for each in _wrong_words(text)]
    return [f"{verb}: {each}" for each in wrong]


_GIVEN: tuple[tuple[str, tuple[str, ...], Callable[..., bytes]], ...] = (
    ("exec", ("--detach", "--process"), mutate_process),
    ("update", ("--resources",), mutate_resources),
)


def _run_apart(words: list[str]) -> int:
    """Run one command of the runtime in a process of its own; return its exit status."""
    pid = os.fork()
    if pid == 0:
        code = _NO_STATUS
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            code = verbs.run(words)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end_executed(others: set[int]) -> None:
    """End what was executed in the container: as orphans they are children of this process."""
    others = others | {neighbour.pid for neighbour in _neighbours}
    for pid in set(children()) - others:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wrong_identity(pid: int, document: dict[str, Any]) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    process, wrong = document.get("process") or {}, []
    user = process.get("user") or {}
    if not _has(document, "user"):
        for field, wanted in (("Uid", user.get("uid") or 0), ("Gid", user.get("gid") or 0)):
            if set(status[field]) != {str(wanted)}:
                wrong.append(f"{field} {status[field]}, not {wanted}")
        groups = {str(group) for group in user.get("additionalGids") or []}
        if not groups <= set(status["Groups"]):
            wrong.append(f"groups {status['Groups']}, not {groups}")
    if bool(process.get("noNewPrivileges")) and status["NoNewPrivs"] != ["1"]:
        wrong.append("no_new_privs is not set")
    sets = process.get("capabilities") or {}
    for name, field in CAPABILITY_SETS.items():
        if not sets.get(name) and int(status[field][0], 16):
            wrong.append(f"{field} {status[field]}, with none asked for")
    return wrong


def _wrong_places(pid: int, document: dict[str, Any]) -> list[str]:
    wrong = []
    for kind, name in NAMESPACES.items():
        own = os.stat(f"/proc/self/ns/{name}").st_ino
        shared = os.stat(f"/proc/{pid}/ns/{name}").st_ino == own
        if shared and _is_new(document, kind):
            wrong.append(f"the {kind} namespace is ours")
        elif not shared and not _has(document, kind):
            wrong.append(f"a {kind} namespace nobody asked for")
    wanted = os.path.normpath((document.get("process") or {})["cwd"])
    meant = Path(document["root"]["path"]).resolve() == Path("/")
    if os.path.samefile(f"/proc/{pid}/root/", "/") and not meant:
        wrong.append("its root is ours")
    cwd = os.readlink(f"/proc/{pid}/cwd")
    if not os.path.normpath(cwd).endswith(os.path.basename(wanted)):
        wrong.append(f"working directory {cwd!r}, not {wanted!r}")
    table = Path(f"/proc/{pid}/mountinfo").read_text()
    root = next((line for line in reversed(table.splitlines()) if line.split()[4] == "/"), "")
    if (document.get("root") or {}).get("readonly") and not root.split()[5].startswith("ro"):
        wrong.append("the root is writable")
    return wrong


def _has(document: dict[str, Any], kind: str) -> bool:
    return any(one["type"] == kind for one in (document.get("linux") or {}).get("namespaces") or [])


def _is_new(document: dict[str, Any], kind: str) -> bool:
    namespaces = (document.get("linux") or {}).get("namespaces") or []
    return any(one["type"] == kind and not one.get("path") for one in namespaces)


def _left(before: Any) -> list[str]:
    after = left_behind()
    return [f"left {kind}: {one}" for kind in before for one in after[kind] - before[kind]]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
