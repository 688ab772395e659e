"""Dockerfile instructions that only change an image's configuration: ``--change``.

Spec: Dockerfile reference, the instructions named; Docker takes the same eleven here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from cais.errors import InvalidArgumentError
from cais.spec.image import ContainerConfig, Healthcheck
from cais.spec.strict_json import InvalidJsonError, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SHELL = ["/bin/sh", "-c"]
_ONE_ARGUMENT = ("STOPSIGNAL", "USER", "WORKDIR")
_VARIABLE = re.compile(r"\\(\$)|\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""", re.DOTALL)
_QUOTE = re.compile(r"""\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'""", re.DOTALL)
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_UNITS_NS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip


class InvalidChangeError(InvalidArgumentError):
    """The text is no instruction, or none that changes a configuration."""


def apply_changes(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """Return the configuration with the instructions applied in order.

    Raises:
        InvalidChangeError: with Docker's text where it has one.

    """
    changes = list(changes)
    lines = [line.strip() for change in changes for line in change.splitlines() if line.strip()]
    if changes and not lines:
        raise InvalidChangeError("file with no instructions")
    is_cmd_set = False
    for line in lines:
        name = line.split(None, 1)[0].upper()
        is_cmd_set = is_cmd_set or name == "CMD"
        config = _apply(config, line)
        if name == "ENTRYPOINT" and not is_cmd_set:  # a command meant for another entry point
            config = msgspec.structs.replace(config, cmd=None)
    return config


def _apply(config: ContainerConfig, line: str) -> ContainerConfig:
    name, *rest = line.split(None, 1)
    instruction = _INSTRUCTIONS.get(name.upper())
    if instruction is None:
        raise InvalidChangeError(f"{name[:80]} is not a valid change command")
    arguments = rest[0] if rest else ""
    if not arguments and name.upper() not in ("CMD", "ENTRYPOINT"):
        how_many = "exactly" if name.upper() in _ONE_ARGUMENT else "at least"
        raise InvalidChangeError(f"{name.upper()} requires {how_many} one argument")
    return msgspec.structs.replace(config, **instruction(config, arguments))


def _cmd(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"cmd": _command(config, text)}


def _entrypoint(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"entrypoint": _command(config, text)}


def _env(config: ContainerConfig, text: str) -> dict[str, Any]:
    env = dict(item.partition("=")[::2] for item in config.env or ())
    env |= _pairs(_expand(text, env), "ENV")
    return {"env": [f"{name}={value}" for name, value in env.items()]}


def _label(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"labels": (config.labels or {}) | _pairs(_expanded(config, text), "LABEL")}


def _expose(config: ContainerConfig, text: str) -> dict[str, Any]:
    ports = dict(config.exposed_ports or {})
    for word in _words(_expanded(config, text)):
        match = _PORT.fullmatch(word)
        if not match:
            raise InvalidChangeError(f"invalid containerPort: {word[:80]}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last < 1 << 16:
            raise InvalidChangeError(f"invalid containerPort: {word[:80]}")
        protocol = (match[3] or "tcp").lower()
        ports |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    return {"exposed_ports": ports}


def _volume(config: ContainerConfig, text: str) -> dict[str, Any]:
    paths = _json_strings(text) or _words(_expanded(config, text))
    if not all(paths):
        raise InvalidChangeError("VOLUME specified can not be an empty string")
    return {"volumes": (config.volumes or {}) | {path: {} for path in paths}}


def _workdir(config: ContainerConfig, text: str) -> dict[str, Any]:
    path = _unquoted(_expanded(config, text))
    start = "/" if path.startswith("/") else f"{config.working_dir}/"
    parts: list[str] = []
    for part in f"{start}/{path}".split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return {"working_dir": "/" + "/".join(parts)}


def _user(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"user": _unquoted(_expanded(config, text))}


def _stop_signal(config: ContainerConfig, text: str) -> dict[str, Any]:
    return {"stop_signal": _unquoted(_expanded(config, text))}


def _on_build(config: ContainerConfig, text: str) -> dict[str, Any]:
    trigger = text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidChangeError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidChangeError(f"{trigger} isn't allowed as an ONBUILD trigger")
    return {"on_build": [*(config.on_build or ()), text]}


def _health_check(_config: ContainerConfig, text: str) -> dict[str, Any]:
    options: dict[str, int] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag.removeprefix("--").partition("=")
        field = name.replace("-", "_")
        if field == "retries" and value.isdecimal():
            options[field] = int(value)
        elif field in ("interval", "timeout", "start_period", "start_interval"):
            options[field] = _duration_ns(value)
        else:
            raise InvalidChangeError(f"unknown flag: {flag[:80]}")
        text = text.lstrip()
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE" and not command:
        return {"healthcheck": Healthcheck(test=["NONE"])}
    if kind.upper() != "CMD" or not command.strip():
        raise InvalidChangeError(f'Unknown type "{kind[:80]}" in HEALTHCHECK (try CMD)')
    words = _json_strings(command.strip())
    test = ["CMD", *words] if words else ["CMD-SHELL", command.strip()]
    return {"healthcheck": Healthcheck(test=test, **options)}


_INSTRUCTIONS: dict[str, Callable[[ContainerConfig, str], dict[str, Any]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(config: ContainerConfig, text: str) -> list[str]:
    words = _json_strings(text)
    if words is not None:
        return words
    return [*(config.shell or _SHELL), text] if text else []


def _json_strings(text: str) -> list[str] | None:
    """Return the list of the exec form; None when it is not one, as Docker reads it."""
    if not text.startswith("["):
        return None
    try:
        words = loads(text)
    except InvalidJsonError:
        return None
    return words if all(isinstance(word, str) for word in words) else None


def _pairs(text: str, instruction: str) -> dict[str, str]:
    """Read ``name=value ...``, or the old ``name value`` with the rest of the line as value."""
    words = _words(text, unquote=False)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidChangeError(f"{instruction} must have two arguments")
        return {name: value.strip()}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidChangeError(
                f"Syntax error - can't find = in {word[:80]!r}. Must be of the form: name=value"
            )
        pairs[_unquoted(name)] = _unquoted(value)
    return pairs


def _words(text: str, *, unquote: bool = True) -> list[str]:
    words = _WORD.findall(text)
    if sum(map(len, words)) != len("".join(text.split())) and not re.search(r"[\"'\\]", text):
        raise InvalidChangeError(f"malformed arguments: {text[:80]!r}")
    return [_unquoted(word) for word in words] if unquote else words


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        if match[2] is not None:
            return re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
        return match[3]

    return _QUOTE.sub(plain, text)


def _expanded(config: ContainerConfig, text: str) -> str:
    return _expand(text, dict(item.partition("=")[::2] for item in config.env or ()))


def _expand(text: str, env: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda m: m[1] or env.get(m[2] or m[3], ""), text)


def _duration_ns(text: str) -> int:
    pieces = _DURATION.findall(text)
    if not pieces or "".join(map("".join, pieces)) != text:
        raise InvalidChangeError(f'time: invalid duration "{text[:80]}"')
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in pieces))
