"""``list``, ``state`` and ``ps``: what there is."""

from __future__ import annotations

import os
import sys

from cais.errors import InvalidArgumentError, NotFoundError
from cais.runtime import state
from cais.runtime.arguments import SWITCH, TEXT
from cais.runtime.verbs.verb import Verb
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context

_FORMAT: Flag = ("format,f", TEXT, "table (default) or json")
_LIST_FLAGS: tuple[Flag, ...] = (_FORMAT, ("quiet,q", SWITCH, "only the ids"))
_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_CELL_MINIMUM, _CELL_GAP = 12, 3


def _list(given: Arguments, context: Context) -> int:
    form = _format(given)
    records = list(state.load_all(context.root, context.log.warning))
    if given.has("quiet"):
        sys.stdout.writelines(f"{record.id}\n" for record in records)
        return 0
    documents = [{**record.document(), "owner": _owner(record)} for record in records]
    if form == "json":
        sys.stdout.write(json_text.encode(documents or None, compact=True) + "\n")
    else:
        sys.stdout.write(table(documents))
    return 0


def table(documents: Sequence[dict[str, Any]]) -> str:
    """Return the table of ``list``."""
    rows = [tuple(name.upper() for name in _COLUMNS)]
    rows += [tuple(str(one[name]) for name in _COLUMNS) for one in documents]
    widths = [max(len(row[n]) for row in rows) + _CELL_GAP for n in range(len(_COLUMNS) - 1)]
    widths = [max(width, _CELL_MINIMUM) for width in widths]
    lines = ("".join(map(str.ljust, row, [*widths, 0])) for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _owner(record: Record) -> str:
    # Only here: no other command names users.
    import pwd

    uid = os.stat(record.directory).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _state(given: Arguments, context: Context) -> int:
    document = state.load(context.root, given.rest[0]).document()
    sys.stdout.write(json_text.encode(document, indent=2) + "\n")
    return 0


def _ps(given: Arguments, context: Context) -> int:
    form = _format(given)
    pids = state.load(context.root, given.rest[0]).pids()
    if form == "json":
        sys.stdout.write(json_text.encode(pids or None, compact=True) + "\n")
    else:
        sys.stdout.write(choose_processes(_host_processes(given.rest[1:] or ["-ef"]), pids))
    return 0


def _host_processes(options: Sequence[str]) -> str:
    # Only here: it costs more than most commands.
    import subprocess

    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotFoundError('exec: "ps": executable file not found in $PATH') from None
    if done.returncode:
        raise InvalidArgumentError(f"exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def choose_processes(listing: str, pids: Iterable[int]) -> str:
    """Return the header of a listing of ``ps``, and the lines of ``pids``.

    Raises:
        InvalidArgumentError: it has no column PID.

    """
    wanted = {str(pid) for pid in pids}
    header, *lines = listing.splitlines()
    titles = header.split()
    if "PID" not in titles:
        raise InvalidArgumentError("couldn't find PID field in ps output")
    place = titles.index("PID")
    chosen = [line for line in lines if wanted.intersection(line.split()[place : place + 1])]
    return "".join(f"{line}\n" for line in (header, *chosen))


def _format(given: Arguments) -> str:
    form = given.text("format", "table")
    if form not in ("table", "json"):
        raise InvalidArgumentError("invalid format option")
    return form


LIST = Verb("list", "list the containers", _list, flags=_LIST_FLAGS, operands="", least=0, most=0)
STATE = Verb("state", "print the state of a container", _state)
PS = Verb(
    "ps",
    "list the processes of a container",
    _ps,
    flags=(_FORMAT,),
    operands="<container-id> [ps options]",
    most=None,
)
