"""``--add-runtime``, ``--default-runtime`` and their keys of the configuration file.

Texts are dockerd's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.api.daemon_flags import InvalidFlagError, invalid_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN = "cais"
_ALWAYS_KNOWN = ("", OWN, "runc", "io.containerd.runc.v2", "crun")
_MEMBERS = frozenset(("path", "runtimeArgs", "runtimeType", "options"))

Runtimes = dict[str, tuple[str, ...]]


def parse_runtimes(given: Iterable[str] | Mapping[str, object]) -> Runtimes:
    """Return program and arguments by name.

    Args:
        given: ``name=path`` of each ``--add-runtime``, or ``runtimes`` of the file.

    Raises:
        InvalidFlagError: dockerd's text.

    """
    if isinstance(given, dict):
        found = {name: _from_file(name, entry) for name, entry in given.items()}
    else:
        found = _from_flags(given)
    if OWN in found:
        raise InvalidFlagError(f"runtime name '{OWN}' is reserved")
    return found


def check_default(name: str, runtimes: Runtimes) -> str:
    """Return the name of the default runtime. InvalidFlagError: nothing has it."""
    if name not in _ALWAYS_KNOWN and name not in runtimes:
        raise InvalidFlagError(f"specified default runtime '{name}' does not exist")
    return name


def _from_flags(texts: Iterable[str]) -> Runtimes:
    found: Runtimes = {}
    for text in texts:
        name, _, path = text.partition("=")
        name, path = name.strip().lower(), path.strip()
        if not path or not _is_name(name):
            raise invalid_value("add-runtime", text, f"invalid runtime argument: {text}")
        if name in found:
            raise invalid_value("add-runtime", text, f"runtime '{name}' was already defined")
        found[name] = (path,)
    return found


def _from_file(name: str, entry: object) -> tuple[str, ...]:
    if not isinstance(entry, dict) or not _is_name(name):
        raise InvalidFlagError(f"runtime {name!r}: not a name and an object")
    if unknown := sorted(set(entry) - _MEMBERS):
        raise InvalidFlagError(f"runtime {name}: unknown members: {', '.join(unknown)}")
    path, arguments = entry.get("path", ""), entry.get("runtimeArgs") or []
    if entry.get("runtimeType") or entry.get("options"):
        raise InvalidFlagError(
            f"runtime {name}: runtimeType and options (containerd's shims) are not supported by "
            "this version of cais: configure the path of an OCI runtime"
        )
    if not isinstance(path, str) or not path:
        raise InvalidFlagError(f"runtime {name}: either a runtimeType or a path must be configured")
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        raise InvalidFlagError(f"runtime {name}: runtimeArgs must be a list of strings")
    return (path, *arguments)


def _is_name(name: str) -> bool:
    """Whether a runtime's directory can have the name."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name
