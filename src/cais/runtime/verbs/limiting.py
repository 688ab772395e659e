"""``pause``, ``resume`` and ``update``: what a container's control group allows."""

from __future__ import annotations

import sys

from cais.errors import ConflictError, InvalidArgumentError, UnsupportedError
from cais.runtime import control, state
from cais.runtime.arguments import NUMBER, TEXT
from cais.runtime.verbs.verb import Verb
from cais.spec import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context
    from cais.spec.runtime import Resources

_UINT64_LIMIT, _INT64_LIMIT = 2**64, 2**63
# flag -> (part of resources, member)
_SIZES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
}
_SIGNED = {
    "cpu-quota": ("cpu", "quota"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
}
_UNSIGNED = {
    "cpu-burst": ("cpu", "burst"),
    "cpu-period": ("cpu", "period"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-share": ("cpu", "shares"),
}
_NUMBERS = {"blkio-weight": ("blockIO", "weight"), "pids-limit": ("pids", "limit")}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_CLASS_FLAGS = {
    "l3-cache-schema": ("l3CacheSchema", "Intel RDT/CAT: l3 cache schema is not enabled"),
    "mem-bw-schema": ("memBwSchema", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
}
_GIVEN_UP = ("kernel-memory", "kernel-memory-tcp")
_UPDATE_FLAGS: tuple[Flag, ...] = (
    ("resources,r", TEXT, "file with an OCI resources document (- is standard input), used alone"),
    ("blkio-weight", NUMBER, "block I/O weight, 10 to 1000"),
    ("cpu-period", TEXT, "CPU period in microseconds"),
    ("cpu-quota", TEXT, "CPU time in each period, in microseconds; -1: no limit"),
    ("cpu-burst", TEXT, "CPU time that may be saved up, in microseconds"),
    ("cpu-share", TEXT, "CPU shares against other containers"),
    ("cpu-rt-period", TEXT, "CPU period of real-time processes, in microseconds"),
    ("cpu-rt-runtime", TEXT, "CPU time of real-time processes in each period, in microseconds"),
    ("cpu-idle", TEXT, "1: run only when nothing else wants the processors"),
    ("cpuset-cpus", TEXT, "processors to use, such as 0-2,7"),
    ("cpuset-mems", TEXT, "memory nodes to use"),
    ("memory", TEXT, "memory limit, in bytes or with a unit"),
    ("memory-reservation", TEXT, "memory that is kept under pressure"),
    ("memory-swap", TEXT, "memory and swap together; -1: no limit"),
    *((name, TEXT, "ignored: Linux has given it up") for name in _GIVEN_UP),
    ("pids-limit", NUMBER, "how many processes there may be; -1: no limit"),
    (
        "l3-cache-schema",
        TEXT,
        "share of the cache, L3:<id>=<mask>;..., of a container with intelRdt",
    ),
    ("mem-bw-schema", TEXT, "share of memory bandwidth, MB:<id>=<share>;..., likewise"),
)


def _pause(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    if record.status() not in ("running", "created"):
        raise ConflictError("container not running")
    control.pause(record.id, record.directory)
    return 0


def _resume(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    if record.status() != "paused":
        raise ConflictError("container not paused")
    control.resume(record.id, record.directory)
    return 0


def _update(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    wanted = resources(given)
    if any(map(given.has, _GIVEN_UP)):
        context.log.warning("Kernel memory settings are ignored and will be removed")
    if any(given.text(flag) for flag in _CLASS_FLAGS):
        _change_class(given, record)
    if not record.is_alive():
        raise ConflictError("container not running")
    control.update(record.id, record.directory, wanted)
    return 0


def _change_class(given: Arguments, record: Record) -> None:
    # Only here: few containers have a class of service.
    from cais.runtime import resctrl

    service_class = resctrl.class_of(record.group())
    asked = {member: given.text(flag) for flag, (member, _) in _CLASS_FLAGS.items()}
    if service_class is None:
        raise UnsupportedError(
            next(text for member, text in _CLASS_FLAGS.values() if asked[member])
        )
    service_class.change(resctrl.schema_lines(asked))


def resources(given: Arguments) -> Resources:
    """Return the limits ``update`` was given: a document, or flags.

    Raises:
        InvalidArgumentError: no such file, not a document, or a value that is no number.

    """
    if given.has("resources"):
        return _read_document(given.text("resources"))
    wanted: dict[str, dict[str, Any]] = {}
    for flag, (part, member) in (_SIZES | _SIGNED | _UNSIGNED | _NUMBERS | _TEXTS).items():
        text = given.text(flag)
        if text:
            wanted.setdefault(part, {})[member] = _value(flag, text)
    return wanted  # type: ignore[return-value]


def _value(flag: str, text: str) -> int | str:
    if flag in _TEXTS:
        return text
    if flag in _SIZES:
        return -1 if text == "-1" else _size(flag, text)
    if flag in _NUMBERS:
        return int(text, 0)
    kind, low, high = "ParseInt", -_INT64_LIMIT, _INT64_LIMIT
    if flag in _UNSIGNED:
        kind, low, high = "ParseUint", 0, _UINT64_LIMIT
    digits = text.removeprefix("-") if flag in _SIGNED else text
    reason = "value out of range"
    if not (digits.isascii() and digits.isdigit()):
        reason = "invalid syntax"
    elif low <= int(text) < high:
        return int(text)
    raise InvalidArgumentError(
        f'invalid value for {flag}: strconv.{kind}: parsing "{text}": {reason}'
    )


def _size(flag: str, text: str) -> int:
    # Only here: it needs re.
    from cais.spec import units

    try:
        return units.ram_bytes(text)
    except units.InvalidSizeError as error:
        raise InvalidArgumentError(f"invalid value for {flag}: {error}") from None


def _read_document(path: str) -> Resources:
    try:
        if path == "-":
            text = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                text = file.read()
        document: Resources = strict_json.loads(text)
    except OSError as error:
        raise InvalidArgumentError(f"open {path}: {(error.strerror or '').lower()}") from None
    except strict_json.InvalidJsonError as error:
        raise InvalidArgumentError(f"invalid resources: {path}: {error}") from None
    return document


PAUSE = Verb("pause", "freeze every process of a container", _pause)
RESUME = Verb("resume", "let a paused container go on", _resume)
UPDATE = Verb("update", "change the limits of a container", _update, flags=_UPDATE_FLAGS)
