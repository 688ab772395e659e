"""Start the shim of a data root from a sealed copy of the interpreter.

A container that reaches the file behind /proc/<pid>/exe of a process of ours must find something
it can only read (CVE-2019-5736): the interpreter is copied into a sealed memfd, and runs isolated
(-I), without ``site`` (-S), without writing bytecode (-B), and with no environment but for where
a shared libpython lies, which it forgets as it starts.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time

from cais.errors import ConflictError, UnavailableError
from cais.linux import memfd
from cais.shim import protocol

_MAX_REPORT = 64 << 10
_DYING_S = 2.0
"""How long a lock may outlast its shim: a killed one's sockets are closed before its files."""
_LOOK_AGAIN_S = 0.005
READY = b"ready\n"
START_TIMEOUT_S = 60.0  # a hundredth does, but where a machine has thirty times its work to do
_CODE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from cais.shim.main import main; sys.exit(main(sys.argv[1:]))"
)


def launch(data_root: str, exec_root: str, *, timeout_s: float = START_TIMEOUT_S) -> None:
    """Start a shim and return once it listens.

    Raises:
        UnavailableError: it did not come up in time; the text says what it said.
        ConflictError: another shim holds the data root.

    Blocks: until the shim listens, about 60 ms.

    """
    import subprocess

    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        _wait_unlocked(data_root)
        program_fd = memfd.sealed_copy(sys.executable, "cais-shim")
        try:
            args = ["--data-root", data_root, "--exec-root", exec_root, "--ready-fd", "2"]
            # This child exits at once, leaving the daemon behind in a session of its own.
            subprocess.run(
                command(args),
                executable=f"/proc/self/fd/{program_fd}",
                pass_fds=[program_fd],
                env=memfd.library_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=write_fd,
                timeout=timeout_s,
                check=False,
            )
        finally:
            os.close(program_fd)
        os.close(write_fd)
        write_fd = -1
        _wait_ready(read_fd, data_root, timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(_not_in_time(data_root, timeout_s)) from exc
    except OSError as exc:
        raise UnavailableError(f"cannot start the shim: {exc}") from exc
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)


def execute_sealed(args: list[str]) -> None:
    """Replace this process by a sealed shim with ``args``; return if it is sealed already."""
    if memfd.runs_sealed():
        return
    program_fd = memfd.sealed_copy(sys.executable, "cais-shim")
    os.set_inheritable(program_fd, True)  # noqa: FBT003 - it is the name of the program
    os.execve(  # noqa: S606
        f"/proc/self/fd/{program_fd}", command(args), memfd.library_environment()
    )


def command(args: list[str]) -> list[str]:
    """Return the argument list of a shim; the first is where Python looks for its library."""
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-S", "-B", "-c", _CODE, package_root, *args]


def _wait_unlocked(data_root: str) -> None:
    path = os.path.join(data_root, protocol.LOCK_NAME)
    try:
        lock_fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        deadline = time.monotonic() + _DYING_S
        while not _is_free(lock_fd):
            if time.monotonic() > deadline:
                holder = os.pread(lock_fd, 4096, 0).decode(errors="replace").strip()
                raise ConflictError(f"data root {data_root} is held by another shim: {holder}")
            time.sleep(_LOOK_AGAIN_S)
    finally:
        os.close(lock_fd)


def _is_free(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock_fd, fcntl.LOCK_UN)  # closing is not enough: a child may be forked just now
    return True


def _not_in_time(data_root: str, timeout_s: float) -> str:
    return f"the shim of {data_root} did not start within {timeout_s:g} s"


def _wait_ready(read_fd: int, data_root: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    said = b""
    while not said.endswith(READY):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([read_fd], [], [], left)[0]:
            raise UnavailableError(_not_in_time(data_root, timeout_s))
        chunk = os.read(read_fd, 4096)
        if not chunk:
            reason = said.decode(errors="replace").strip() or "it said nothing"
            raise UnavailableError(f"the shim of {data_root} did not start: {reason}")
        said = (said + chunk)[-_MAX_REPORT:]
