"""``exec``: another process in a container."""

from __future__ import annotations

import os

from cais.errors import ConflictError, InvalidArgumentError
from cais.linux import credentials
from cais.runtime import execution, state
from cais.runtime.arguments import NUMBERS, SWITCH, TEXT
from cais.runtime.habits import Habits
from cais.runtime.launch import Stdio
from cais.runtime.verbs import handing
from cais.runtime.verbs.verb import Verb
from cais.spec import json_text, strict_json
from cais.spec.runtime import CONFIG_LIMIT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.launch import Running
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context

_FLAGS: tuple[Flag, ...] = (
    *handing.FLAGS,
    ("cwd", TEXT, "working directory in the container"),
    ("env,e", TEXT, "environment variable to add, name=value; may be repeated"),
    ("tty,t", SWITCH, "give the process a terminal"),
    ("user,u", TEXT, "user id, and group id behind a colon"),
    ("additional-gids,g", NUMBERS, "another group id; may be repeated"),
    ("process,p", TEXT, "file with the process as an OCI document"),
    ("detach,d", SWITCH, "do not wait for the process to end"),
    ("process-label", TEXT, "SELinux label of the process"),
    ("apparmor", TEXT, "AppArmor profile of the process"),
    ("no-new-privs", SWITCH, "forbid the process to gain privileges"),
    ("cap,c", TEXT, "capability to add; may be repeated"),
    ("cgroup", TEXT, "group below the container's to enter, [controller:]path; may be repeated"),
    ("ignore-paused", SWITCH, "allow it in a paused container"),
)


def _exec(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    _check_status(record, given)
    document = _document(given, record)
    needs_terminal = bool(document["process"].get("terminal"))
    detached = given.has("detach")
    handing.check_terminal(given, needs_terminal=needs_terminal, detached=detached)
    habits = Habits()
    habits.subgroups = _subgroups(given.values("cgroup"))
    handing.preserve(given, habits)
    front = None
    if not detached:
        # Only here: a detached process needs nothing of it.
        from cais.runtime import foreground

        front = foreground.Front()
    running = _begin(record, document, habits)
    try:
        handing.hand_over(given, running, context.log)
    except BaseException:
        handing.end(running)
        raise
    return front.stay(running) if front else 0


def _check_status(record: Record, given: Arguments) -> None:
    status = record.status()
    if status == "stopped":
        raise ConflictError("cannot exec in a stopped container")
    if status == "paused" and not given.has("ignore-paused"):
        raise ConflictError("cannot exec in a paused container (use --ignore-paused to override)")


def _begin(record: Record, document: dict[str, Any], habits: Habits) -> Running:
    stdio = None if document["process"].get("terminal") else Stdio(0, 1, 2)
    path = f"{record.directory}/exec-{os.getpid()}.json"
    with open(path, "x") as file:
        file.write(json_text.encode(document))
    pidfd = os.pidfd_open(record.pid)
    try:
        launch = execution.begin_exec(
            *(record.id, record.directory, path, pidfd),
            stdio=stdio,
            habits=habits,
            bundle_path=record.bundle,
        )
        return handing.wait(launch)
    finally:
        os.unlink(path)
        os.close(pidfd)


def _document(given: Arguments, record: Record) -> dict[str, Any]:
    """Return the document of the process, from a file or from flags and the container's."""
    if given.has("process"):
        path = given.text("process")
        try:
            with open(path, "rb") as file:
                process = strict_json.loads(file.read(), CONFIG_LIMIT_BYTES)
        except OSError as error:
            raise InvalidArgumentError(f"open {path}: {(error.strerror or '').lower()}") from None
        except strict_json.InvalidJsonError as error:
            raise InvalidArgumentError(f"{path}: {error}") from None
        if not isinstance(process, dict):
            raise InvalidArgumentError(f"{path}: the process is not an object")
        return {"process": process}
    if len(given.rest) < 2:
        raise InvalidArgumentError("process args cannot be empty")
    return {"process": _from_flags(given, record)}


def _from_flags(given: Arguments, record: Record) -> dict[str, Any]:
    wanted: dict[str, Any] = {**record.config()["process"]}
    wanted["args"] = given.rest[1:]
    wanted["terminal"] = given.has("tty")
    wanted["env"] = [*wanted.get("env", []), *given.values("env")]
    wanted["cwd"] = given.text("cwd") or wanted["cwd"]
    if not wanted["cwd"].startswith("/"):
        raise InvalidArgumentError("Cwd must be an absolute path")
    wanted["user"] = _user(given, wanted.get("user", {}))
    if given.has("no-new-privs"):
        wanted["noNewPrivileges"] = True
    for flag, member in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if given.text(flag):
            wanted[member] = given.text(flag)
    if given.has("cap"):
        wanted["capabilities"] = _with_capabilities(
            wanted.get("capabilities", {}), given.values("cap")
        )
    return wanted


def _with_capabilities(sets: dict[str, list[str]], added: Sequence[str]) -> dict[str, list[str]]:
    """Add to what a process holds; ambient only where it is inheritable, as runc does."""
    wanted = {**sets}
    for name in ("bounding", "effective", "permitted"):
        wanted[name] = [*sets.get(name, ()), *added]
    if sets.get("inheritable"):
        wanted["ambient"] = [*sets.get("ambient", ()), *added]
    return wanted


def _user(given: Arguments, user: dict[str, Any]) -> dict[str, Any]:
    wanted = {**user}
    text = given.text("user")
    if text:
        uid, colon, gid = text.partition(":")
        wanted["uid"] = _id(uid, "uid")
        if colon:
            wanted["gid"] = _id(gid, "gid")
    if given.has("additional-gids"):
        groups = [*user.get("additionalGids", ()), *map(int, given.values("additional-gids"))]
        wanted["additionalGids"] = groups
    return wanted


def _id(text: str, kind: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgumentError(
            f'parsing {text} as int for {kind} failed: strconv.Atoi: parsing "{text}": '
            "invalid syntax"
        )
    number = int(text)
    if not 0 <= number <= credentials.MAX_ID:
        raise InvalidArgumentError(f"{kind}s shall be in 0-{credentials.MAX_ID} range")
    return number


def _subgroups(values: Sequence[str]) -> dict[str, str]:
    """Return controller (or "") to group, from ``path`` or ``controller[,controller]:path``."""
    found: dict[str, str] = {}
    for value in values:
        controllers, colon, path = value.partition(":")
        if ":" in path:
            raise InvalidArgumentError(f"invalid --cgroup argument: {value}")
        if not colon:
            if len(values) > 1:
                raise InvalidArgumentError(
                    f"invalid --cgroup argument: {value} (missing <controller>: prefix)"
                )
            found[""] = value
        for controller in controllers.split(",") if colon else ():
            found[controller] = path
    return found


EXEC = Verb(
    "exec",
    "run another process in a container",
    _exec,
    flags=_FLAGS,
    operands="<container-id> <command> [arguments]  or  -p process.json <container-id>",
    most=None,
)
