"""Start ``caisd`` when no daemon answers on a socket that is ours to serve.

Two commands at the same moment start one daemon: the starter holds a lock on
``<exec-root>/start.lock`` until its daemon answers; the other finds it answering.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from cais.errors import CaisError, UnavailableError

if TYPE_CHECKING:
    import subprocess

    from cais.client import Client

DEFAULT_DATA_ROOT = "/var/lib/cais"
DEFAULT_EXEC_ROOT = "/run/cais"
START_TIMEOUT_S = 90
PING_TIMEOUT_S = 10
LOG_TAIL_BYTES = 2000


class Roots(NamedTuple):
    """The two directories of a daemon; ``chosen`` if the user named one of them."""

    data: str
    exec: str
    chosen: bool

    @classmethod
    def choose(cls, data_root: str | None, exec_root: str | None) -> Roots:
        """Return the roots; a data root of one's own gets an exec root of its own."""
        chosen = bool(data_root or exec_root)
        data = os.path.abspath(data_root or DEFAULT_DATA_ROOT)
        if exec_root is None:
            exec_root = DEFAULT_EXEC_ROOT
            if data != DEFAULT_DATA_ROOT:
                import hashlib

                exec_root += "-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
        return cls(data, os.path.abspath(exec_root), chosen)

    @property
    def socket_path(self) -> str:
        """Where the daemon of these roots listens."""
        return os.path.join(self.exec, "caisd.sock")

    @property
    def log_path(self) -> str:
        """Where a daemon we start writes."""
        return os.path.join(self.exec, "caisd.log")


def ensure_daemon(client: Client, roots: Roots, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return once a daemon answers ``client``; start one on ``roots`` if nobody does.

    Raises:
        UnavailableError: it cannot be started; the text holds what the daemon said.

    """
    if _answers(client):
        return
    if os.geteuid() != 0:
        raise UnavailableError(
            f"no daemon answers at {client.address}, and starting one needs root"
        )
    os.makedirs(roots.exec, mode=0o711, exist_ok=True)
    with open(os.path.join(roots.exec, "start.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(client):
            _start(client, roots, timeout_s)


def _answers(client: Client) -> bool:
    try:
        client.ping(timeout_s=PING_TIMEOUT_S)
    except UnavailableError:
        return False
    except CaisError:
        return True  # somebody is there, if slow; the command itself will tell what is wrong
    return True


def _answers_well(client: Client) -> bool:
    # Our own daemon, on its way up or down: a cut connection is no answer yet.
    try:
        client.ping(timeout_s=PING_TIMEOUT_S)
    except CaisError:
        return False
    return True


def _start(client: Client, roots: Roots, timeout_s: float) -> None:
    import subprocess

    with open(roots.log_path, "ab") as log:
        began_at = log.tell()
        daemon = subprocess.Popen(
            daemon_command(client, roots),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + timeout_s
    while not _answers_well(client):
        if daemon.poll() is not None:
            raise UnavailableError(
                f"caisd ended with status {daemon.returncode}: {_said(roots, began_at)}"
            )
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"caisd (pid {daemon.pid}) does not answer after {timeout_s:g} s; "
                f"see {roots.log_path}"
            )
        time.sleep(0.01)
    _disown(daemon)


def daemon_command(client: Client, roots: Roots) -> list[str]:
    """Return the command that serves ``client``'s address from ``roots``."""
    beside_us = os.path.join(os.path.dirname(sys.executable), "caisd")
    if os.access(beside_us, os.X_OK):
        program = [beside_us]
    else:
        program = [sys.executable, "-c", "from cais.wiring import main; main()"]
    return [
        *program,
        *("-H", str(client.address)),
        *("--data-root", roots.data),
        *("--exec-root", roots.exec),
    ]


def _said(roots: Roots, began_at: int) -> str:
    with open(roots.log_path, "rb") as log:
        log.seek(began_at)
        text = log.read().decode(errors="backslashreplace").strip()
    return text[-LOG_TAIL_BYTES:] or f"it wrote nothing to {roots.log_path}"


def _disown(daemon: subprocess.Popen[bytes]) -> None:
    # It outlives us on purpose: without this, Popen warns about it when we exit.
    daemon.returncode = 0
