"""User namespaces for ID-mapped mounts, made by the parent before the container exists.

Spec: OCI runtime-spec 1.2, config.md "Mounts", uidMappings, gidMappings, idmap, ridmap.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError
from cais.linux import user_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.plan import ContainerPlan


def open_namespaces(container: ContainerPlan) -> list[int]:
    """Give every ID-mapped mount its ``idmap_fd``; return the descriptors, owned.

    Mounts with the same mapping share one. A mount without a mapping of its own has that of the
    container's user namespace.

    Raises:
        InvalidArgumentError: there is neither.
        KernelError: the mapping cannot be made.

    """
    made: dict[object, int] = {}
    try:
        for entry in (*container.root.layers, *container.root.mounts):
            if entry.idmap:
                maps = _maps(container, entry.uid_map, entry.gid_map, entry.destination)
                key = repr(maps)
                if key not in made:
                    made[key] = _open(maps)
                entry.idmap_fd = made[key]
    except BaseException:
        for fd in made.values():
            os.close(fd)
        raise
    return list(made.values())


def _maps(
    container: ContainerPlan,
    uid_map: list[tuple[int, int, int]],
    gid_map: list[tuple[int, int, int]],
    destination: str,
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] | str:
    if uid_map:
        return uid_map, gid_map
    if container.user_path:
        return container.user_path
    if not container.has_user_namespace:
        text = "idmap needs mappings, its own or a user namespace's"
        raise InvalidArgumentError(f"mount {destination}: {text}")
    return container.uid_map, container.gid_map


def _open(
    maps: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] | str,
) -> int:
    if isinstance(maps, str):
        return os.open(maps, os.O_RDONLY | os.O_CLOEXEC)
    return user_namespaces.make_user_namespace(*maps)
