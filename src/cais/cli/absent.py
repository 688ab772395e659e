"""The commands docker has and this version has not: named, instead of called unknown."""

from __future__ import annotations

from cais.errors import UnsupportedError

DOCKERS: dict[str, frozenset[str]] = {
    "": frozenset(
        (
            *("build", "builder", "buildx", "checkpoint", "compose", "config", "context"),
            *("node", "plugin", "port"),
            *("secret", "service", "stack", "stats", "swarm", "trust"),
        )
    ),
    "container": frozenset(("port", "stats")),
    "image": frozenset(("build",)),
    "manifest": frozenset(("annotate", "create", "push", "rm")),
    "network": frozenset(("connect", "create", "disconnect", "rm")),
    "system": frozenset(("dial-stdio",)),
    "volume": frozenset(("update",)),
}
"""Of the docker CLI 28, by group; what we have takes precedence."""


class AbsentCommandError(UnsupportedError):
    """A command of docker's that does not exist here."""

    def __init__(self, group: str, name: str) -> None:
        """Args: group is as the user sees it: "cais" or "cais image"."""
        docker = " ".join(("docker", *group.split()[1:], name))
        super().__init__(
            f"'{docker}' is not supported by cais yet\n\nRun '{group} --help' for what is"
        )


def is_dockers(group: str, name: str) -> bool:
    """Say whether docker has such a command; ``group`` as for ``AbsentCommandError``."""
    return name in DOCKERS.get(" ".join(group.split()[1:]), ())
