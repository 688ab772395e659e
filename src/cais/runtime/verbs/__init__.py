"""The commands of ``cais-runtime``: from a command line to an exit status.

A module for each family of commands, imported when one of them is asked for.

Spec: OCI runtime-spec 1.2, runtime.md; the command line, its texts and statuses are runc's.
"""

from __future__ import annotations

import os
import sys

from cais.errors import CaisError, InternalError, InvalidArgumentError
from cais.linux import process
from cais.runtime import arguments
from cais.runtime.arguments import SWITCH, TEXT, UsageError
from cais.runtime.launch import LaunchError
from cais.runtime.log import Log
from cais.runtime.verbs.verb import HELP, Context, flag_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.verbs.verb import Verb

__all__ = ["run"]

_UNKNOWN_VERB = 3
_MODULES = {  # verb -> the module that has it, under its name in capitals
    "checkpoint": "checkpointing",
    "create": "starting",
    "delete": "ending",
    "events": "watching",
    "exec": "executing",
    "features": "describing",
    "kill": "ending",
    "list": "listing",
    "pause": "limiting",
    "ps": "listing",
    "restore": "checkpointing",
    "resume": "limiting",
    "run": "starting",
    "spec": "describing",
    "start": "starting",
    "state": "listing",
    "update": "limiting",
}
_FLAGS: tuple[Flag, ...] = (
    ("debug", SWITCH, "log every step"),
    ("log", TEXT, "file to write logs to (default: standard error)"),
    ("log-format", TEXT, "format of the logs: text (default) or json"),
    ("root", TEXT, "directory of the containers' state, on a tmpfs (default: /run/cais-runtime)"),
    ("criu", TEXT, "program for checkpoint and restore (default: criu)"),
    ("systemd-cgroup", SWITCH, "let systemd make the cgroups; cgroupsPath is slice:prefix:name"),
    ("rootless", TEXT, "go on without cgroups one may not write: true, false or auto (default)"),
    HELP,
    ("version,v", SWITCH, "print the version"),
)


def run(words: list[str]) -> int:
    """Run one command line; return the exit status."""
    process.set_name(b"cais-runtime")  # it was started as a descriptor's number
    log = Log()
    name = ""
    try:
        given = arguments.parse(words, _FLAGS)
        log = Log(given.text("log"), given.text("log-format"), debug=given.has("debug"))
        name = given.rest[0] if given.rest else ""
        return _answer(given) if _wants_help(given) else _perform(given, log)
    except UsageError as error:
        sys.stdout.write(f"Incorrect Usage. {error.explanation}".rstrip() + "\n\n" + _usage())
        log.failure(str(error))
        return 1
    except CaisError as error:
        log.failure(_explain(name, error))
    except OSError as error:
        log.failure(_explain(name, InvalidArgumentError(_reason(error))))
    except Exception as error:  # noqa: BLE001 - engines look for the reason in the log alone
        log.step(_traceback(error))
        reason = f"internal error: {type(error).__name__}: {error}"
        log.failure(_explain(name, InternalError(reason)))
    return 255 if name == "exec" else 1


def _perform(given: Arguments, log: Log) -> int:
    name, *rest = given.rest
    if name not in _MODULES:
        log.failure(f"No help topic for '{name}'")
        return _UNKNOWN_VERB
    verb = _find(name)
    if given.has("rootless"):
        # Only here: who does not say it is known by what it may do.
        from cais.runtime import standing

        standing.set_rootless(given.text("rootless"))
    try:
        asked = arguments.parse(rest, (*verb.flags, HELP))
        if asked.has("help"):
            sys.stdout.write(verb.help())
            return 0
        verb.check_operands(asked)
    except UsageError as error:
        colon = ": " if error.explanation else "."
        sys.stdout.write(f"Incorrect Usage{colon}{error.explanation}\n\n{verb.help()}")
        log.failure(str(error))
        return 1
    log.step(f"cais-runtime {name}")
    return verb.run(asked, _context(given, log))


def _context(given: Arguments, log: Log) -> Context:
    # Absolute, for a command may enter the bundle.
    root = os.path.abspath(given.text("root") or _default_root())
    if not root.strip("/"):
        raise InvalidArgumentError("Option --root argument should not be set to /")
    context = Context(root, log)
    context.by_systemd = given.has("systemd-cgroup")
    context.criu = given.text("criu", "criu")
    return context


def _default_root() -> str:
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own:
        # Only here: root of the host has no such directory, or none that is meant for it.
        from cais.runtime import standing

        if standing.is_ordinary_user() or standing.is_nested():
            return f"{own}/cais-runtime"
    return "/run/cais-runtime"


def _find(name: str) -> Verb:
    module = __import__(f"cais.runtime.verbs.{_MODULES[name]}", fromlist=[name])
    verb: Verb = getattr(module, name.upper())
    return verb


def _wants_help(given: Arguments) -> bool:
    asks = given.has("version") or given.has("help")
    return asks or not given.rest or given.rest[0] in ("help", "h")


def _answer(given: Arguments) -> int:
    if given.has("version"):
        # Only here: what a start never needs.
        from cais.runtime.verbs import describing

        sys.stdout.write(describing.version())
        return 0
    topic = given.rest[1] if len(given.rest) > 1 else ""
    if topic and topic not in _MODULES:
        Log(given.text("log"), given.text("log-format")).failure(f"No help topic for '{topic}'")
        return _UNKNOWN_VERB
    sys.stdout.write(_find(topic).help() if topic else _usage())
    return 0


def _usage() -> str:
    commands = "".join(f"   {name:12}{_find(name).summary}\n" for name in sorted(_MODULES))
    return (
        "NAME:\n   cais-runtime - run containers described by OCI bundles\n\n"
        "USAGE:\n   cais-runtime [global options] command [command options] [arguments...]\n\n"
        f"COMMANDS:\n{commands}   help, h     show the help of a command\n\n"
        f"GLOBAL OPTIONS:\n{flag_lines(_FLAGS)}"
    )


def _explain(name: str, error: CaisError) -> str:
    """Return the sentence an engine shows: which command failed, and why."""
    text = str(error)
    if isinstance(error, LaunchError):
        text = f"unable to start container process: {error.message}"
    if name in ("create", "run"):
        return f"cais-runtime {name} failed: {text}"
    return f"exec failed: {text}" if name == "exec" else text


def _traceback(error: Exception) -> str:
    # Only here: it loads re.
    import traceback

    return "".join(traceback.format_exception(error))


def _reason(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{(error.strerror or str(error)).lower()}"
