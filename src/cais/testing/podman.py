"""podman with a runtime of choice, in namespaces and directories of its own."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cais.testing.bundles import make_rootfs
from cais.testing.isolation import remove_cgroups
from cais.testing.namespaces import Namespaces
from cais.testing.pseudoterminal import PseudoTerminal
from cais.testing.waiting import PATIENCE_S

IMAGE = "localhost/box"
_CONFIGURATION = """
[engine]
events_logger = "file"
runtime_supports_json = ["runc", "cais-runtime"]
"""


class Podman:
    """podman that drives ``runtime``; a context manager. Needs root.

    Its containers have no network but a loopback: names and addresses are not the runtime's work.

    Args:
        directory: an existing directory for its storage; not removed.
        runtime: path of the OCI runtime.

    """

    def __init__(self, directory: Path, runtime: str) -> None:
        self.directory = directory
        self.runtime = runtime
        self.cgroup_parent = f"cais-test-{os.getpid()}-{secrets.token_hex(3)}"
        self._namespaces = Namespaces()
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }

    def __enter__(self) -> Self:
        (self.directory / "containers.conf").write_text(_CONFIGURATION)
        self._namespaces.__enter__()
        self._import_image()
        return self

    def __exit__(self, *_: object) -> None:
        self._namespaces.__exit__()
        remove_cgroups(self.cgroup_parent)

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command line."""
        roots = [f"--{name}={self.directory / name}" for name in ("root", "runroot", "tmpdir")]
        options = ("--storage-driver=vfs", "--cgroup-manager=cgroupfs", f"--runtime={self.runtime}")
        return [*self._namespaces.enter, "podman", *roots, *options, *arguments]

    def __call__(
        self, *arguments: str, code: int | None = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; ``code`` is the exit status it must have, None: any."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin.decode(),
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done}"
        return done

    def run(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a container of the image; options first, then the command behind ``--``."""
        return self("run", *self.placed(*arguments), code=code)

    def placed(self, *arguments: str) -> Sequence[str]:
        """Put the image where ``--`` is, and options every container has before it."""
        place = arguments.index("--")
        common = ["--network=none", f"--cgroup-parent=/{self.cgroup_parent}"]
        return [*common, *arguments[:place], IMAGE, *arguments[place + 1 :]]

    def terminal(self, *arguments: str) -> PseudoTerminal:
        """Run one command on a terminal of its own."""
        return PseudoTerminal(self.command(*arguments), self._environment)

    def _import_image(self) -> None:
        root = self.directory / "image"
        make_rootfs(root)
        archive = shutil.make_archive(str(self.directory / "image"), "tar", root)
        self("import", "--change", 'CMD ["sh"]', archive, IMAGE)
