"""Run tests on a host with cgroup v2 alone: a user-mode Linux kernel on this machine's files.

    python tests/vm/run_uml.py [tests or pytest arguments]

Without arguments it runs the tests of control groups. The guest sees the host's root read-only
through hostfs, has memory, processes, mounts and control groups of its own, and no network; it
boots in a second or two and needs no privilege. Its console is this program's output, and its
last line carries the exit status out.

Needs: linux.uml (Debian: user-mode-linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cais.linux.seccomp import load
from cais.linux.seccomp.compiler import compile_profile

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("guest_init.sh")
KERNEL = "linux.uml"
MARKER = re.compile(rb"guest-exit-status=(\d+)")
MEMORY = "512M"
DEADLINE_S = 300.0
DEFAULT_TESTS = ["tests/kernel/linux/test_cgroup_limits.py"]


def main(arguments: list[str]) -> int:
    """Boot, run pytest with ``arguments`` in the checkout, and return its exit status."""
    kernel = shutil.which(KERNEL)
    if kernel is None:
        sys.stderr.write(f"{KERNEL} is not installed (Debian: user-mode-linux)\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="cais-uml-") as scratch:
        options = ["-q", "-p", "no:cacheprovider", "--color=no"]
        command = [sys.executable, "-B", "-m", "pytest", *options, *(arguments or DEFAULT_TESTS)]
        Path(scratch, "command").write_text("\n".join([str(CHECKOUT), *command]) + "\n")
        return _boot(kernel, scratch)


def _boot(kernel: str, scratch: str) -> int:
    guest = subprocess.Popen(
        [
            *(kernel, f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            *("con0=null,fd:1", "con=null", "ssl=null", f"uml_dir={scratch}", "umid=guest"),
            *(f"init={INIT}", f"cais_scratch={scratch}", "panic=-1"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": scratch},
        start_new_session=True,
        preexec_fn=_hide_extended_registers(),  # noqa: PLW1509 - no thread has been started
    )
    try:
        return _follow(guest)
    finally:
        # The guest's processes are processes of this machine, all in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()


def _hide_extended_registers() -> Callable[[], None]:
    """Make user-mode Linux save registers the old way.

    Linux 6.1's keeps room for AVX; where the processor has more (AVX-512, AMX) the host refuses
    to take the shortened state back and init dies. It falls back to the old calls if
    PTRACE_GETREGSET of NT_X86_XSTATE fails, so a filter makes that fail.
    """
    equal = "SCMP_CMP_EQ"
    arguments = [
        {"index": 0, "value": 0x4204, "op": equal},
        {"index": 2, "value": 0x202, "op": equal},
    ]
    rule = {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": arguments}
    program = compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    libc = ctypes.CDLL(None)

    def load_filter() -> None:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        load(program)

    return load_filter


def _follow(guest: subprocess.Popen[bytes]) -> int:
    """Copy the console until the marker, the end, or the deadline."""
    assert guest.stdout is not None
    end, tail, status = time.monotonic() + DEADLINE_S, b"", None
    with selectors.DefaultSelector() as selector:
        selector.register(guest.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            if not selector.select(1):
                continue
            chunk = os.read(guest.stdout.fileno(), 65536)
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            tail = (tail + chunk)[-4096:]
            if match := MARKER.search(tail):
                status = int(match[1])
            if not chunk or status is not None:
                break
    if status is None:
        sys.stderr.write("the guest ended without a status\n")
    return 3 if status is None else status


def _stop(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))
