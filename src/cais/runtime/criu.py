"""CRIU as a program: find it, run it, and say why it failed.

Spec: criu(8).
"""

from __future__ import annotations

import os

from cais.errors import InternalError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(criu: str, words: Sequence[str], passed: Sequence[int]) -> None:
    """Run CRIU to its end.

    Args:
        criu: the program, a path or a name to be searched for.
        words: its arguments; they name ``--work-dir`` and ``--log-file``.
        passed: descriptors it gets under their numbers; of 0, 1 and 2 those of this process.

    Raises:
        UnsupportedError: it is not installed.
        InternalError: it failed, with its reason.

    Blocks: until it has ended.

    """
    # Only here: it costs more than most commands.
    import subprocess

    command = [_find(criu), *words]
    environment = {**os.environ, "PATH": os.environ.get("PATH", _DEFAULT_PATH)}
    done = subprocess.run(
        command,
        pass_fds=[fd for fd in passed if fd > 2],
        stdin=None if 0 in passed else subprocess.DEVNULL,
        stdout=None if 1 in passed else subprocess.DEVNULL,
        stderr=None if 2 in passed else subprocess.PIPE,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return
    log = os.path.join(_after(words, "--work-dir"), _after(words, "--log-file"))
    reason = find_reason(_read(log)) or (done.stderr or b"").decode(errors="replace").strip()
    verb = words[0]
    code = f"exit status {done.returncode}"
    raise InternalError(f"criu {verb} failed: {reason or code}\nlog file: {log}")


def _find(criu: str) -> str:
    if "/" in criu:
        candidates = [criu]
    else:
        path = os.environ.get("PATH", _DEFAULT_PATH)
        candidates = [f"{directory}/{criu}" for directory in path.split(":") if directory]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise UnsupportedError(
        f'checkpoint and restore need CRIU: exec: "{criu}": executable file not found in $PATH'
    )


def _after(words: Sequence[str], flag: str) -> str:
    return words[list(words).index(flag) + 1]


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def find_reason(text: str) -> str:
    """Return the first and last error of a CRIU log, without times and places; empty if none.

    The first is nearly always the cause, the last what could not be done because of it.
    """
    errors = [line for line in text.splitlines() if "Error (" in line]
    reasons = [line.partition("): ")[2].strip() or line.strip() for line in errors]
    return "; ".join(dict.fromkeys([*reasons[:1], *reasons[-1:]]))
