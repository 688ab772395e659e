"""The root of a container that does not run, mounted for as long as somebody looks into it.

``docker cp`` wants what the container would see: its root and what is mounted on it. That view may
exist in no mount table of the host, so a process of its own has it, in a mount namespace that goes
with it, and the engine works below ``/proc/<pid>/root``::

    engine ──stdin──▶ {"rootfs": [...], "mounts": [...], "read_only": bool,
                       "maps": {"uid": [...], "gid": [...]} | null}          one line
    engine ◀─stdout── an empty line: it stands; or why it cannot
    engine ──stdin──▶ end of file: let go

Only binds are mounted; each is placed as a start would place it (``placement``). "/" of this
process is the container's root as well: no path looked up here leads to anything of the host.
"""

from __future__ import annotations

import json
import os
import sys

from cais.linux import mount, namespaces
from cais.runtime import placement, rootfs
from cais.runtime.mounts import parse_mount, parse_root_mount
from cais.runtime.root_plan import RootPlan


def main() -> None:
    """Hold the root that standard input describes until it ends."""
    try:
        _assemble(json.loads(sys.stdin.buffer.readline()))
    except Exception as exc:  # noqa: BLE001 - told to the engine, which decides
        text = str(exc).replace("\n", " ") or type(exc).__name__
        os.write(1, f"{text}\n".encode())
        return
    os.write(1, b"\n")
    while os.read(0, 4096):
        pass


def _assemble(document: dict[str, object]) -> None:
    plan = RootPlan("/")
    plan.layers = [parse_root_mount(entry) for entry in document["rootfs"]]  # type: ignore[attr-defined]
    plan.mounts = [parse_mount(entry, "/") for entry in document["mounts"]]  # type: ignore[attr-defined]
    if document["maps"] is not None:
        _map_layers(plan, document["maps"])  # type: ignore[arg-type]
    namespaces.unshare(namespaces.CLONE_NEWNS)
    rootfs.open_host_trees(plan, alone=True)
    root_fd = rootfs.enter(plan)
    for entry in plan.mounts:
        placement.place(entry, root_fd)
    if document["read_only"]:
        mount.set_attributes(root_fd, set_bits=mount.MOUNT_ATTR_RDONLY)


def _map_layers(plan: RootPlan, maps: dict[str, list[tuple[int, int, int]]]) -> None:
    # Only here: most containers have the host's users.
    from cais.linux.user_namespaces import make_user_namespace

    fd = make_user_namespace(maps["uid"], maps["gid"])
    for layer in plan.layers:
        layer.idmap_fd = fd


if __name__ == "__main__":
    main()
