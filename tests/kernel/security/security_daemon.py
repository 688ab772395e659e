"""A daemon as an attacker of the tests would find it, and its API over docker-py."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class MaskedDaemon(TestDaemon):
    """A daemon started with the umask and environment given, from a directory given."""

    def __init__(
        self,
        directory: Path,
        *,
        umask: str = "022",
        environment: Mapping[str, str] | None = None,
        working_directory: str = "/",
    ) -> None:
        super().__init__(directory)
        self.umask = umask
        self.given = dict(environment or {})
        self.working_directory = working_directory

    def command(self) -> list[str]:
        """Return the command line: a shell sets what is given and becomes the daemon."""
        words = [f"{name}={value}" for name, value in self.given.items()]
        script = f'umask {self.umask}; cd {self.working_directory}; exec "$@"'
        return ["sh", "-c", script, "sh", "env", *words, *super().command()]


@contextmanager
def public_directory() -> Iterator[Path]:
    """Make a directory anybody may enter, so that only what lies in it keeps them out."""
    with tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextmanager
def connected(daemon: TestDaemon) -> Iterator[docker.DockerClient]:
    """Give a client of the daemon."""
    client = docker.DockerClient(base_url=daemon.host, timeout=PATIENCE_S)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def running(client: docker.DockerClient, *command: str, **options: Any) -> Iterator[Any]:
    """Run a container in the background; it is removed at the end."""
    container = client.containers.run(
        options.pop("image", "busybox"), list(command), detach=True, **options
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def shim_pid(daemon: TestDaemon) -> int:
    """Return the pid of the daemon's shim, seen from outside."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--data-root" in words and str(daemon.data_root).encode() in words:
            name = (entry / "comm").read_text().strip()
            if name == "cais-shim":
                return int(entry.name)
    raise AssertionError("there is no shim")
