"""The command line and configuration file of ``caisd``, as dockerd reads its own.

Every flag but a few is also a key of the file (lists in the plural). What stands in both, and
what neither knows, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cais.errors import InvalidArgumentError
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DEFAULT_CONFIG_FILE = "/etc/cais/daemon.json"
_PROXIES = "proxies"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

Kind = Literal["string", "bool", "list", "int"]
Values = dict[str, Any]


class InvalidFlagError(InvalidArgumentError):
    """The command line or the configuration file cannot be used."""


class Flag(NamedTuple):
    """One option: ``--name``, perhaps ``-s``, and its key in the file ("" for none)."""

    name: str
    kind: Kind
    help: str
    short: str = ""
    file_key: str | None = None

    @property
    def key(self) -> str:
        """What the configuration file calls it; "" if it may not stand there."""
        return self.name if self.file_key is None else self.file_key


FLAGS = (
    Flag("add-runtime", "list", "Register an additional OCI compatible runtime: name=path",
         file_key="runtimes"),
    Flag("allow-nondistributable-artifacts", "list",
         "Allow push of nondistributable artifacts to registry",
         file_key="allow-nondistributable-artifacts"),
    Flag("bip", "string", "Address and prefix length of the bridge"),
    Flag("bridge", "string", "Attach containers to an existing network bridge", short="b"),
    Flag("cgroup-parent", "string", "Set parent cgroup for all containers"),
    Flag(
        "config-file", "string", f'Daemon configuration file (default "{DEFAULT_CONFIG_FILE}")',
        file_key="",
    ),
    Flag("data-root", "string", 'Directory of persistent state (default "/var/lib/cais")'),
    Flag("debug", "bool", "Enable debug mode", short="D"),
    Flag("default-runtime", "string", 'Default OCI runtime for containers (default "cais")'),
    Flag("exec-root", "string", 'Directory of execution state (default "/run/cais")'),
    Flag("experimental", "bool", "Enable experimental features: checkpoints"),
    Flag("exec-opt", "list", "Runtime execution options: native.cgroupdriver=cgroupfs|systemd",
         file_key="exec-opts"),
    Flag("group", "string", "Group for the unix socket", short="G"),
    Flag("help", "bool", "Print usage", file_key=""),
    Flag("host", "list", "Daemon socket(s) to connect to", short="H", file_key="hosts"),
    Flag("http-proxy", "string", "HTTP proxy URL to use for outgoing traffic"),
    Flag("https-proxy", "string", "HTTPS proxy URL to use for outgoing traffic"),
    Flag("insecure-registry", "list", "Enable insecure registry communication",
         file_key="insecure-registries"),
    Flag("label", "list", "Set key=value labels to the daemon", file_key="labels"),
    Flag("log-driver", "string", 'Default driver for container logs (only "json-file")'),
    Flag(
        "log-level", "string", 'Set the logging level ("debug"|"info"|"warn"|"error")', short="l"
    ),
    Flag("log-opt", "list", "Default log driver options: max-size, max-file", file_key="log-opts"),
    Flag("max-concurrent-downloads", "int", "Layers fetched at once (default 3)"),
    Flag("max-concurrent-uploads", "int", "Layers sent at once (default 5)"),
    Flag("no-proxy", "string", "Hosts to reach without a proxy, with commas between"),
    Flag("pidfile", "string", 'Path to use for daemon PID file (default "<exec-root>/caisd.pid")',
         short="p"),
    Flag("registry-mirror", "list", "Preferred registry mirror of docker.io",
         file_key="registry-mirrors"),
    Flag("shutdown-timeout", "int", "Seconds to let requests end at the daemon's end"),
    Flag("storage-driver", "string",
         "Storage driver to use (overlay2|fuse-overlayfs|btrfs|vfs)", short="s"),
    Flag("tls", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "string", "Trust certs signed only by this CA"),
    Flag("tlscert", "string", "Path to TLS certificate file"),
    Flag("tlskey", "string", "Path to TLS key file"),
    Flag("tlsverify", "bool", "Use TLS and verify the remote"),
    Flag("userns-remap", "string", "User/Group setting for user namespaces"),
    Flag("validate", "bool", "Validate daemon configuration and exit", file_key=""),
    Flag("version", "bool", "Print version information and quit", short="v", file_key=""),
)  # fmt: skip
_BY_NAME = {flag.name: flag for flag in FLAGS}
_BY_SHORT = {flag.short: flag for flag in FLAGS if flag.short}
_BY_KEY = {flag.key: flag for flag in FLAGS if flag.key}


def parse_flags(arguments: Sequence[str]) -> Values:
    """Read the command line: values by flag name, only of those given.

    Raises:
        InvalidFlagError: dockerd's text.

    """
    values: Values = {}
    words = iter(arguments)
    for word in words:
        if word == "--":
            _no_arguments(next(words, ""))
        elif word.startswith("--"):
            _read_long(word, words, values)
        elif word.startswith("-") and len(word) > 1:
            _read_short(word, words, values)
        else:
            _no_arguments(word)
    return values


def load_config_file(path: Path, *, must_exist: bool) -> Values:
    """Read the configuration file: values by flag name.

    Raises:
        InvalidFlagError: unreadable, not JSON, an unknown key or a value of another type.

    """
    try:
        document = strict_json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        if must_exist:
            raise _file_error(path, f"open {path}: no such file or directory") from exc
        return {}
    except OSError as exc:
        raise _file_error(path, f"open {path}: {exc.strerror}") from exc
    except InvalidArgumentError as exc:
        raise _file_error(path, str(exc)) from exc
    if not isinstance(document, dict):
        raise _file_error(path, "not a JSON object")
    document = _without_groups(path, document)
    if unknown := sorted(set(document) - set(_BY_KEY)):
        raise _file_error(
            path,
            "the following directives don't match any configuration option: " + ", ".join(unknown),
        )
    return {
        _BY_KEY[key].name: _file_value(path, _BY_KEY[key], value) for key, value in document.items()
    }


def _without_groups(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Take the members of ``proxies`` out of it."""
    proxies = document.pop(_PROXIES, {})
    if not isinstance(proxies, dict):
        raise _file_error(path, f"{_PROXIES}: not an object")
    if unknown := sorted(set(proxies) - {"http-proxy", "https-proxy", "no-proxy"}):
        raise _file_error(
            path,
            "the following directives don't match any configuration option: "
            + ", ".join(f"{_PROXIES}.{name}" for name in unknown),
        )
    return document | proxies


def merge(flags: Values, file: Values) -> Values:
    """Put both together. InvalidFlagError: something stands in both (a list too)."""
    both = [
        f"{_BY_NAME[name].key}: (from flag: {_shown(flags[name])}, from file: {_shown(value)})"
        for name, value in file.items()
        if name in flags
    ]
    if both:
        raise InvalidFlagError(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(both)
        )
    return {**file, **flags}


def usage() -> str:
    """Return the text of ``--help``."""
    lines = ["Usage:  caisd [OPTIONS]", "", "A container engine.", "", "Options:"]
    for flag in FLAGS:
        short = f"-{flag.short}, " if flag.short else "    "
        kind = "" if flag.kind == "bool" else f" {flag.kind}"
        lines.append(f"  {short}{'--' + flag.name + kind:<26} {flag.help}")
    return "\n".join(lines)


def _read_long(word: str, words: Iterator[str], values: Values) -> None:
    name, equals, text = word[2:].partition("=")
    flag = _BY_NAME.get(name)
    if flag is None:
        raise InvalidFlagError(f"unknown flag: --{name}")
    if not equals:
        text = _argument(flag, words, f"flag needs an argument: --{name}")
    _store(flag, text, values)


def _read_short(word: str, words: Iterator[str], values: Values) -> None:
    """Read ``-Dl debug``, ``-Hunix://x``, ``-H=unix://x``."""
    letters = word[1:]
    while letters:
        flag = _BY_SHORT.get(letters[0])
        if flag is None:
            raise InvalidFlagError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
        rest = letters[1:]
        if rest.startswith("="):
            return _store(flag, rest[1:], values)
        if flag.kind == "bool":
            _store(flag, "true", values)
            letters = rest
            continue
        missing = f"flag needs an argument: '{letters[0]}' in -{letters}"
        return _store(flag, rest or _argument(flag, words, missing), values)
    return None


def _argument(flag: Flag, words: Iterator[str], missing: str) -> str:
    if flag.kind == "bool":
        return "true"
    text = next(words, None)
    if text is None:
        raise InvalidFlagError(missing)
    return text


def _store(flag: Flag, text: str, values: Values) -> None:
    if flag.kind == "list":
        values.setdefault(flag.name, []).append(text)
    elif flag.kind == "bool":
        values[flag.name] = _parse_bool(flag, text)
    elif flag.kind == "int":
        values[flag.name] = _parse_int(flag, text)
    else:
        values[flag.name] = text


def _parse_bool(flag: Flag, text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise invalid_value(flag.name, text, f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _parse_int(flag: Flag, text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        why = f'strconv.ParseInt: parsing "{text}": invalid syntax'
        raise invalid_value(flag.name, text, why) from exc


def invalid_value(name: str, text: str, why: str) -> InvalidFlagError:
    """Return the error for a flag's value that cannot be used."""
    flag = _BY_NAME[name]
    spelled = f"-{flag.short}, --{name}" if flag.short else f"--{name}"
    return InvalidFlagError(f'invalid argument "{text}" for "{spelled}" flag: {why}')


def _file_value(path: Path, flag: Flag, value: object) -> object:
    if flag.name == "log-opt" and isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    if flag.name == "add-runtime" and isinstance(value, dict):
        return value  # as it is: a runtime has arguments too here
    kinds: dict[str, type] = {"string": str, "bool": bool, "list": list, "int": int}
    wanted = kinds[flag.kind]
    if type(value) is not wanted or (
        isinstance(value, list) and not all(isinstance(item, str) for item in value)
    ):
        raise _file_error(path, f"{flag.key}: not a {flag.kind}")
    return value


def _file_error(path: Path, why: str) -> InvalidFlagError:
    return InvalidFlagError(f"unable to configure the daemon with file {path}: {why}")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + " ".join(value) + "]" if isinstance(value, list | dict) else str(value)


def _no_arguments(word: str) -> None:
    if word:
        raise InvalidFlagError('"caisd" accepts no arguments')
