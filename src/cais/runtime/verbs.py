"""The commands of ``cais-runtime``: create, start, run, exec, state, kill, delete and the rest.

Spec: OCI runtime-spec 1.2, runtime.md; the command line is runc's.
"""

from __future__ import annotations

import os
import select
import sys
import time

from cais.errors import (
    CaisError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from cais.linux import process
from cais.linux.signals import SIGKILL
from cais.runtime import arguments, container, foreground, reports, state
from cais.runtime.launch import LaunchError, Stdio
from cais.runtime.plan import load_config
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.arguments import Arguments
    from cais.runtime.launch import Launch, Running
    from cais.runtime.state import Record

DEFAULT_ROOT = "/run/cais-runtime"
_START_TIMEOUT_S = 10
_GLOBAL_SWITCHES = {name: name for name in ("debug", "systemd-cgroup", "version", "help")}
_GLOBAL_SWITCHES |= {"v": "version", "h": "help"}
_GLOBAL_OPTIONS = {name: name for name in ("root", "log", "log-format", "rootless", "criu")}
_CREATE_SWITCHES = {name: name for name in ("no-pivot", "no-new-keyring", "detach", "keep")}
_CREATE_SWITCHES |= {"d": "detach", "no-subreaper": "no-subreaper"}
_CREATE_OPTIONS = {name: name for name in ("bundle", "console-socket", "pid-file", "preserve-fds")}
_CREATE_OPTIONS |= {"b": "bundle"}
_EXEC_SWITCHES = {"tty": "tty", "t": "tty", "detach": "detach", "d": "detach"}
_EXEC_SWITCHES |= {"no-new-privs": "no-new-privs", "ignore-paused": "ignore-paused"}
_EXEC_OPTIONS = {
    "console-socket": "console-socket",
    "cwd": "cwd",
    "env": "env",
    "e": "env",
    "user": "user",
    "u": "user",
    "process": "process",
    "p": "process",
    "pid-file": "pid-file",
    "cap": "cap",
    "c": "cap",
    "additional-gids": "additional-gids",
    "g": "additional-gids",
    "preserve-fds": "preserve-fds",
}


def run(words: list[str]) -> int:
    """Run one command line; return the exit status."""
    process.set_name(b"cais-runtime")  # it was started as a descriptor's number
    log = reports.Log()
    name = ""
    try:
        given = arguments.parse(words, _GLOBAL_SWITCHES, _GLOBAL_OPTIONS)
        log = reports.Log(given.text("log"), given.text("log-format"))
        if given.has("version") or given.has("help") or not given.rest:
            sys.stdout.write(reports.version() if given.has("version") else reports.USAGE)
            return 0
        name, *rest = given.rest
        if name not in _VERBS:
            raise InvalidArgumentError(f"no such command: {name}")
        return _VERBS[name](given.text("root", DEFAULT_ROOT).rstrip("/"), rest, log)
    except CaisError as error:
        log.failure(_explain(name, error))
        return 255 if name == "exec" else 1


def _create(root: str, words: list[str], log: reports.Log) -> int:
    given = arguments.parse(words, _CREATE_SWITCHES, _CREATE_OPTIONS)
    _create_container(root, given, log)
    return 0


def _run(root: str, words: list[str], log: reports.Log) -> int:
    given = arguments.parse(words, _CREATE_SWITCHES, _CREATE_OPTIONS)
    front = None if given.has("detach") else foreground.Front()
    record, running = _create_container(root, given, log, hold=False, detached=front is None)
    if front is None:
        return 0
    code = front.stay(running)
    if not given.has("keep"):
        container.destroy(record.id, record.bundle)
        record.remove()
    return code


def _create_container(
    root: str,
    given: Arguments,
    log: reports.Log,
    *,
    hold: bool = True,
    detached: bool = True,
) -> tuple[Record, Running]:
    (container_id,) = _operands(given, "container ID")
    _refuse(given, "preserve-fds", "no-pivot")
    bundle = os.path.abspath(given.text("bundle", "."))
    needs_terminal = load_config(bundle)["process"].get("terminal", False)
    _check_terminal(given, needs_terminal=needs_terminal, detached=detached)
    directory = state.reserve(root, container_id)
    hold_fd = -1
    try:
        if hold:
            os.mkfifo(f"{directory}/{state.START_FIFO}", 0o622)
            hold_fd = os.open(f"{directory}/{state.START_FIFO}", os.O_RDONLY | os.O_NONBLOCK)
        stdio = None if needs_terminal else Stdio(0, 1, 2)
        launch = container.begin(container_id, bundle, stdio=stdio, hold_fd=hold_fd)
        running = _wait(launch)
    except BaseException:
        state.discard(directory)
        raise
    finally:
        if hold_fd >= 0:
            os.close(hold_fd)
    _hand_over(given, running, log)
    record = state.save(directory, container_id, bundle, running.pid, running.start_ticks)
    return record, running


def _start(root: str, words: list[str], _: reports.Log) -> int:
    record = _one(root, words)
    status = record.status()
    if status != "created":
        raise ConflictError(f"cannot start a container in the {status} state")
    try:
        fifo_fd = os.open(record.fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fifo_fd, b"0")
        os.close(fifo_fd)
    except OSError as error:
        raise ConflictError(f"cannot start container: {error.strerror}") from error
    os.unlink(record.fifo)
    return 0


def _exec(root: str, words: list[str], log: reports.Log) -> int:
    given = arguments.parse(words, _EXEC_SWITCHES, _EXEC_OPTIONS)
    if not given.rest:
        raise InvalidArgumentError('"exec" requires a minimum of 1 argument')
    _refuse(given, "preserve-fds")
    record = state.load(root, given.rest[0])
    status = record.status()
    if status not in ("running", "created"):
        raise ConflictError(f"cannot exec in a {status} container")
    document = reports.exec_document(given, load_config(record.bundle)["process"])
    needs_terminal = bool(document["process"].get("terminal"))
    _check_terminal(given, needs_terminal=needs_terminal, detached=given.has("detach"))
    front = None if given.has("detach") else foreground.Front()
    path = f"{record.directory}/exec-{os.getpid()}.json"
    with open(path, "w") as file:
        file.write(json_text.encode(document))
    pidfd = os.pidfd_open(record.pid)
    try:
        stdio = None if needs_terminal else Stdio(0, 1, 2)
        running = _wait(container.begin_exec(record.id, record.bundle, path, pidfd, stdio=stdio))
    finally:
        os.unlink(path)
        os.close(pidfd)
    _hand_over(given, running, log)
    return 0 if front is None else front.stay(running)


def _state(root: str, words: list[str], _: reports.Log) -> int:
    sys.stdout.write(json_text.encode(_one(root, words).document(), indent=2) + "\n")
    return 0


def _kill(root: str, words: list[str], _: reports.Log) -> int:
    given = arguments.parse(words, {"all": "all", "a": "all"}, {})
    if not 1 <= len(given.rest) <= 2:
        raise InvalidArgumentError('"kill" requires a container ID and at most one signal')
    record = state.load(root, given.rest[0])
    number = reports.parse_signal(given.rest[1] if len(given.rest) == 2 else "SIGTERM")
    if given.has("all"):
        for pid in container.cgroup_of(record.id, record.bundle).pids():
            _send(pid, number)
    elif record.status() == "stopped":
        raise ConflictError("container not running")
    else:
        _send(record.pid, number)
    return 0


def _delete(root: str, words: list[str], _: reports.Log) -> int:
    given = arguments.parse(words, {"force": "force", "f": "force"}, {})
    (container_id,) = _operands(given, "container ID")
    try:
        record = state.load(root, container_id)
    except NotFoundError:
        if given.has("force"):
            return 0
        raise
    status = record.status()
    if status == "running" and not given.has("force"):
        raise ConflictError(f"cannot delete container {container_id} that is not stopped: {status}")
    if status != "stopped":
        _send(record.pid, SIGKILL)
        _wait_until_stopped(record)
    container.destroy(record.id, record.bundle)
    record.remove()
    return 0


def _list(root: str, words: list[str], _: reports.Log) -> int:
    given = arguments.parse(
        words, {"quiet": "quiet", "q": "quiet"}, {"format": "format", "f": "format"}
    )
    records = list(state.load_all(root))
    if given.has("quiet"):
        sys.stdout.writelines(f"{record.id}\n" for record in records)
    elif given.text("format") == "json":
        sys.stdout.write(json_text.encode([record.document() for record in records]) + "\n")
    else:
        sys.stdout.write(reports.table([record.document() for record in records]))
    return 0


def _ps(root: str, words: list[str], _: reports.Log) -> int:
    given = arguments.parse(words, {}, {"format": "format", "f": "format"})
    if not given.rest:
        raise InvalidArgumentError('"ps" requires a container ID')
    record = state.load(root, given.rest[0])
    pids = container.cgroup_of(record.id, record.bundle).pids()
    if given.text("format", "table") == "json":
        sys.stdout.write(json_text.encode(pids) + "\n")
    else:
        sys.stdout.write(reports.processes(pids))
    return 0


def _pause(root: str, words: list[str], _: reports.Log) -> int:
    record = _one(root, words)
    status = record.status()
    if status not in ("running", "created"):
        raise ConflictError(f"container not running: {status}")
    container.pause(record.id, record.bundle)
    return 0


def _resume(root: str, words: list[str], _: reports.Log) -> int:
    record = _one(root, words)
    if record.status() != "paused":
        raise ConflictError("container not paused")
    container.resume(record.id, record.bundle)
    return 0


def _update(root: str, words: list[str], _: reports.Log) -> int:
    names = dict(reports.LIMITS)
    options = {name: name for name in (*names, "resources")} | {"r": "resources"}
    given = arguments.parse(words, {}, options)
    (container_id,) = _operands(given, "container ID")
    record = state.load(root, container_id)
    container.update(record.id, record.bundle, reports.resources(given))
    return 0


def _spec(_: str, words: list[str], __: reports.Log) -> int:
    given = arguments.parse(words, {"rootless": "rootless"}, {"bundle": "bundle", "b": "bundle"})
    _refuse(given, "rootless")
    path = os.path.join(given.text("bundle", "."), "config.json")
    try:
        with open(path, "x") as file:
            file.write(json_text.encode(reports.example_config(), indent="\t") + "\n")
    except FileExistsError:
        raise ConflictError("File config.json exists. Remove it first") from None
    return 0


def _features(_: str, __: list[str], ___: reports.Log) -> int:
    sys.stdout.write(json_text.encode(reports.features(), indent=4) + "\n")
    return 0


_VERBS: dict[str, Callable[[str, list[str], reports.Log], int]] = {
    "create": _create,
    "delete": _delete,
    "exec": _exec,
    "features": _features,
    "kill": _kill,
    "list": _list,
    "pause": _pause,
    "ps": _ps,
    "resume": _resume,
    "run": _run,
    "spec": _spec,
    "start": _start,
    "state": _state,
    "update": _update,
}


def _one(root: str, words: list[str]) -> Record:
    (container_id,) = _operands(arguments.parse(words, {}, {}), "container ID")
    return state.load(root, container_id)


def _operands(given: Arguments, what: str) -> tuple[str]:
    if len(given.rest) != 1:
        raise InvalidArgumentError(f"exactly 1 argument is required: {what}")
    return (given.rest[0],)


def _refuse(given: Arguments, *names: str) -> None:
    for name in names:
        if given.has(name) and given.text(name, "yes") != "0":
            raise UnsupportedError(f"--{name} is not supported")


def _check_terminal(given: Arguments, *, needs_terminal: bool, detached: bool) -> None:
    has_socket = given.has("console-socket")
    if needs_terminal and detached and not has_socket:
        raise InvalidArgumentError(
            "cannot allocate tty if runc will detach without setting console socket"
        )
    if has_socket and not (needs_terminal and detached):
        raise InvalidArgumentError(
            "cannot use console socket if runc will not detach or allocate tty"
        )


def _hand_over(given: Arguments, running: Running, log: reports.Log) -> None:
    for text in running.warnings:
        log.notice(text)
    if given.has("console-socket") and running.terminal_fd is not None:
        foreground.send_terminal(given.text("console-socket"), running.terminal_fd)
    if given.has("pid-file"):
        path = given.text("pid-file")
        with open(f"{path}.new", "w") as file:
            file.write(str(running.pid))
        os.rename(f"{path}.new", path)


def _wait(launch: Launch) -> Running:
    while (running := launch.advance()) is None:
        select.select([launch], [], [])
    return running


def _wait_until_stopped(record: Record) -> None:
    end = time.monotonic() + _START_TIMEOUT_S
    while record.is_alive():
        if time.monotonic() > end:
            raise ConflictError(f"container {record.id} does not end after SIGKILL")
        time.sleep(0.005)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _explain(name: str, error: CaisError) -> str:
    if isinstance(error, LaunchError):
        verb = "exec" if name == "exec" else name
        return f"{verb} failed: unable to start container process: {error.message}"
    return str(error)


__all__ = ["run"]
