"""``top``: the host's ps, and of its rows those of one container."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from cais.errors import CaisError, InternalError, InvalidArgumentError
from cais.linux.cgroups import detect, open_cgroup

_LIMIT_S = 10


def list_processes(pid: int, ps_args: str) -> dict[str, Any]:
    """Return ``{Titles, Processes}`` for the processes below ``pid``.

    Blocks: runs ps.

    Raises:
        InvalidArgumentError: ps refuses the arguments, or its output has no PID column.

    """
    check_ps_args(ps_args)
    try:
        result = subprocess.run(
            ["ps", *ps_args.split()],
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
            text=True,
            errors="replace",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InternalError(f"error running ps: {exc}") from exc
    if result.returncode != 0:
        complaint = result.stderr.strip().partition("\n")[0]
        raise InvalidArgumentError(f"ps: {complaint or f'exit status {result.returncode}'}")
    return select_rows(result.stdout, pids_of(pid))


def check_ps_args(ps_args: str) -> None:
    """Refuse ``-o`` lists that rename the PID column: the rows could not be told apart."""
    for match in re.finditer(r"\s+([^\s]*)=\s*(PID[^\s]*)", " " + ps_args):
        if match.group(1).split(",")[-1] != "pid":
            raise InvalidArgumentError(f'specifying "{match.group(0).strip()}" is not allowed')


def select_rows(output: str, pids: set[int]) -> dict[str, Any]:
    """Keep the title line and the rows whose PID is one of ``pids``.

    Raises:
        InvalidArgumentError: no PID column.

    """
    header, _, body = output.partition("\n")
    titles = header.split()
    if "PID" not in titles:
        raise InvalidArgumentError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    is_wanted = False
    for line in body.splitlines():
        fields = line.split(None, len(titles) - 1)
        if len(fields) <= column:
            continue
        if fields[column] == "-":  # a thread row belongs to the process above it
            if is_wanted:
                rows.append(fields)
            continue
        is_wanted = fields[column].isdigit() and int(fields[column]) in pids
        if is_wanted:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}


def pids_of(pid: int) -> set[int]:
    """Return the host pids of every process in the cgroup of ``pid``, exec'd ones included.

    Blocks: reads the cgroup. (The pid namespace would not do: it may be shared.)
    """
    path = cgroup_path_of(pid)
    if path in ("", "/"):
        return {pid}
    try:
        return {pid, *open_cgroup(detect(), path).pids()}
    except (OSError, CaisError):
        return {pid}  # it has just ended


def cgroup_path_of(pid: int) -> str:
    """Return the path of a process in the hierarchy that has the pids or else the v2 tree."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    found = ""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "pids" in controllers.split(","):
            return path
        if not controllers or not found:
            found = path if path != "/" else found
    return found
