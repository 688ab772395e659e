"""Debian's docker-registry, run beside a daemon in its namespaces."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.daemon import TestDaemon

_WAIT_S = 60


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
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("docker-registry")
        assert program, "docker-registry is not installed"
        self._process = subprocess.Popen(
            [*self._daemon.enter_namespaces, program, "serve", self._configuration],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def clear(self) -> None:
        """Forget every image."""
        shutil.rmtree(self._blobs, ignore_errors=True)

    def _wait_until_it_answers(self) -> None:
        probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{self._port}"]
        deadline = time.monotonic() + _WAIT_S
        while self._daemon.run_inside(probe, check=False).returncode:
            if time.monotonic() > deadline:
                raise AssertionError("the registry does not answer")
            time.sleep(0.05)
