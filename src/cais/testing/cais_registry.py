"""``cais registry serve``, run beside a daemon in its namespaces."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Self

from cais.testing.daemon import BIN

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.daemon import TestDaemon


class CaisRegistry:
    """A registry on loopback; a context manager.

    Args:
        daemon: whose namespaces it runs in.
        data_root: of the registry; the daemon's own, or another one.
        flags: of ``cais registry serve``.
        port: where it listens; 0: where there is room.

    """

    def __init__(self, daemon: TestDaemon, data_root: Path, *flags: str, port: int = 0) -> None:
        self.name = ""
        """``localhost:<port>``, once entered."""

        self._command = [
            *daemon.enter_namespaces,
            *("setpriv", "--pdeathsig", "KILL"),  # with nsenter, which stays its parent
            *(str(BIN / "cais"), "--data-root", str(data_root)),
            *("registry", "serve", "--address", f"127.0.0.1:{port}", *flags),
        ]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # "Serving a registry at <origin> from <root>"
        assert line, f"the registry ended with {self._process.wait()}"
        self.name = "localhost:" + line.split()[4].rpartition(":")[2]
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it, as a power cut would; it is gone when this returns. Idempotent."""
        if self._process is None:
            return
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.read()  # until the server, too, has let go of it
        self._process.stdout.close()
        self._process = None
