"""caisd in the host's pid namespace, which is the one systemd and CRIU know, and its CLI."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cais.client.address import Address
from cais.client.client import Client
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent


class Host:
    """The daemon of a directory, with a busybox image; ``cais`` is called by calling it."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self.socket = directory / "caisd.sock"
        self.client = Client(Address(str(self.socket)))
        self.command = [
            # Network and mounts of its own; no pid namespace.
            *("unshare", "--net", "--mount", "--propagation", "private"),
            *(str(BIN / "caisd"), "-H", f"unix://{self.socket}"),
            *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
            *("--pidfile", str(directory / "pid"), *flags),
        ]

    def __call__(self, *words: str, code: int | None = 0) -> str:
        done = subprocess.run(
            [str(BIN / "cais"), "-H", f"unix://{self.socket}", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert code in (None, done.returncode), done.stdout
        return done.stdout.strip()


@contextmanager
def running(host: Host) -> Iterator[Host]:
    """Run the daemon; the container called ``box`` goes at the end."""
    log_path = host.directory / "log"
    with log_path.open("wb") as log:
        daemon = subprocess.Popen(host.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(
            lambda: host.socket.exists() or daemon.poll() is not None, "caisd does not listen"
        )
        assert daemon.poll() is None, log_path.read_text()
        host("image", "bootstrap", "busybox")
        yield host
        host("rm", "-f", "box", code=None)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(PATIENCE_S)
