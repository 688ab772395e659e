"""Which OCI runtime runs a container: our own, or a program somebody configured or installed.

    cais                          our own, in the shim
    <name>                        what the configuration names
    runc, io.containerd.runc.v2   Docker's names: runc if it is installed, else our own
    crun                          crun if it is installed

docs/adr/0013-other-runtimes.md says why.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.runtime.launch import LaunchError
from cais.shim.values import OciRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.engine.config import EngineConfig

OWN = "cais"
_OWN_PROGRAM = "cais-runtime"
# What is used if it is installed, and nobody has configured something else under its name.
_INSTALLED = {"runc": "runc", "io.containerd.runc.v2": "runc", "crun": "crun"}
_DOCKERS_OWN = ("runc", "io.containerd.runc.v2")


class Runtimes:
    """The names ``--runtime`` takes."""

    def __init__(self, config: EngineConfig) -> None:
        self.configure(config.runtimes, config.default_runtime)
        self._exec_root = config.exec_root
        self._flags = ("--systemd-cgroup",) if config.cgroup_driver == "systemd" else ()

    def configure(self, runtimes: Mapping[str, tuple[str, ...]], default: str) -> None:
        """Take over what the daemon's configuration says now; containers keep their names."""
        self._configured = runtimes
        self.default = default or OWN

    def check(self, name: str) -> str:
        """Return the name to store for what was asked for; "" asks for the default.

        Raises:
            InvalidArgumentError: Docker's text.

        """
        name = name or self.default
        if name != OWN and name not in self._commands():
            raise InvalidArgumentError(f"unknown or invalid runtime name: {name[:64]}")
        return name

    def find(self, name: str) -> OciRuntime | None:
        """Return the program behind a name; None for our own. Blocks: looks along PATH.

        Raises:
            InvalidArgumentError: the name is not known any more.
            LaunchError: its program is not there.

        """
        if name == OWN:
            return None
        path, *arguments = self._commands()[self.check(name)]
        if path == _OWN_PROGRAM:
            return None
        found = shutil.which(path)
        if found is None:
            raise LaunchError(f'exec: "{path}": executable file not found in $PATH')
        root = f"{self._exec_root}/runtimes/{name}"
        return OciRuntime(found, (*arguments, *self._flags), root)

    def describe(self) -> dict[str, Any]:
        """Return ``Runtimes`` of ``GET /info``: every name and what it stands for."""
        return {
            name: {"path": path, **({"runtimeArgs": arguments} if arguments else {})}
            for name, (path, *arguments) in sorted(self._commands().items())
        }

    def _commands(self) -> dict[str, tuple[str, ...]]:
        commands: dict[str, tuple[str, ...]] = {OWN: (_OWN_PROGRAM,)}
        for name, program in _INSTALLED.items():
            if shutil.which(program) is not None:
                commands[name] = (program,)
            elif name in _DOCKERS_OWN:
                commands[name] = (_OWN_PROGRAM,)
        return {**commands, **self._configured}
