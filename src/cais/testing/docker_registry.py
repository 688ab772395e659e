"""Debian's docker-registry and other servers, run beside a daemon in its namespaces."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

_WAIT_S = 60


@contextlib.contextmanager
def serving_beside(daemon: TestDaemon, port: int, *command: str) -> Iterator[None]:
    """Run a server until the end of the block; begins once it listens on ``port``."""
    dying = ("setpriv", "--pdeathsig", "KILL")  # with nsenter, which stays its parent
    process = subprocess.Popen(
        [*daemon.enter_namespaces, *dying, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
        deadline = time.monotonic() + _WAIT_S
        while daemon.run_inside(probe, check=False).returncode:
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


class DockerRegistry:
    """A registry on loopback; a context manager.

    Args:
        daemon: whose namespaces it runs in.
        directory: an existing directory for its configuration and its blobs; not removed.
        port: where it listens.
        lines: more of its configuration, in YAML.

    """

    def __init__(self, daemon: TestDaemon, directory: Path, *lines: str, port: int = 5055) -> None:
        self.name = f"localhost:{port}"
        self._daemon = daemon
        self._port = port
        self._blobs = directory / "registry"
        self._configuration = directory / "registry.yml"
        self._configuration.write_text(
            "\n".join(
                (
                    "version: 0.1",
                    f"storage: {{filesystem: {{rootdirectory: {self._blobs}}}}}",
                    f"http: {{addr: '127.0.0.1:{port}'}}",
                    *lines,
                )
            )
        )
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        program = shutil.which("docker-registry")
        assert program, "docker-registry is not installed"
        command = (program, "serve", str(self._configuration))
        self._running.enter_context(serving_beside(self._daemon, self._port, *command))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def clear(self) -> None:
        """Forget every image."""
        shutil.rmtree(self._blobs, ignore_errors=True)
