"""User namespaces of containers, for a daemon that was started with ``--userns-remap``.

Every container has one of its own, with the daemon's maps at the time it was created, unless it
asked for the host's (``--userns=host``). It owns the container's network namespace and is made
with that. Who shares a namespace of another container shares its user namespace as well: root of
one means nothing in what belongs to another.

Layers are the same for all, ID-mapped for each container (adr/0021).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cais.engine.oci.modes import other_container
from cais.errors import ConflictError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.engine.core import Core
    from cais.engine.records import ContainerRecord
    from cais.spec.container import HostConfig
    from cais.spec.identities import IdentityMaps


class Users(NamedTuple):
    """The user namespace that a container's network namespace belongs to; of the host if empty.

    A new one with ``maps``, or that pinned at ``source``.
    """

    maps: IdentityMaps | None = None
    source: str = ""

    @property
    def key(self) -> str:
        """What is the same for namespaces that are as good as each other; "" for the host's."""
        return self.source or ("" if self.maps is None else repr(self.maps))


def decide_identities(core: Core, host_config: HostConfig) -> IdentityMaps | None:
    """Return the maps of a container to be created; None: it has the host's users.

    Raises:
        InvalidArgumentError: with Docker's text, what a user namespace excludes.
        UnsupportedError: another runtime than our own.

    """
    identities = core.config.identities
    if identities is None or host_config.userns_mode == "host":
        return None
    check_remapped(host_config)
    if core.runtimes.find(host_config.runtime) is not None:
        raise UnsupportedError(
            f"runtime {host_config.runtime} is not supported with user namespaces: "
            "run the container with --userns=host, or with the runtime cais"
        )
    return identities


def check_remapped(host_config: HostConfig) -> None:
    """Refuse what a container with users of its own cannot have. InvalidArgumentError."""
    if host_config.privileged:
        raise InvalidArgumentError(
            "privileged mode is incompatible with user namespaces.  You must run the container "
            "in the host namespace when running privileged mode"
        )
    if host_config.network_mode == "host":
        raise InvalidArgumentError(
            "cannot share the host's network namespace when user namespaces are enabled"
        )
    if host_config.pid_mode == "host":
        raise InvalidArgumentError(
            "cannot share the host PID namespace when user namespaces are enabled"
        )


def users_of(core: Core, record: ContainerRecord) -> Users:
    """Return whose the network namespace of a container about to start shall be.

    Raises:
        ConflictError: it shares namespaces of containers with other user namespaces.

    """
    if record.identities is None:
        return Users()
    places = list(_joined_places(core, record))
    for place in places[1:]:
        if not Path(place).samefile(places[0]):
            raise ConflictError(
                "cannot share namespaces of several containers that have different user namespaces"
            )
    return Users(source=places[0]) if places else Users(record.identities)


def _joined_places(core: Core, record: ContainerRecord) -> Iterable[str]:
    """Yield where the user namespaces of those are pinned that a container shares one with."""
    host_config = record.host_config
    modes = {
        "network": record.network_mode,
        "IPC": host_config.ipc_mode,
        "PID": host_config.pid_mode,
    }
    for kind, mode in modes.items():
        if (ref := other_container(mode)) is None:
            continue
        other = core.table.resolve(ref).record
        attachment = other.attachment
        if not other.state.running or attachment is None:
            raise ConflictError(f"cannot join {kind} of a non running container: {other.id}")
        if attachment.userns_path is None:
            raise ConflictError(
                f"cannot join {kind} of container {other.id}: it has the host's user namespace "
                "(hint: use --userns=host)"
            )
        yield attachment.userns_path
