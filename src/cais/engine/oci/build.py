"""Put the document together.

Spec: OCI runtime-spec 1.2; architecture.md 3.2 for ``cais.json``.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cais.engine.oci import devices, filters, masks, mounts, namespaces, resources
from cais.engine.oci.process import build_process, own_program
from cais.engine.oci.security import parse_security_options
from cais.linux.cgroups import clean_path
from cais.spec.runtime import OCI_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cais.engine.oci.host import Host
    from cais.engine.oci.security import SecurityOptions
    from cais.snapshots.snapshotter import Mount
    from cais.spec.container import ContainerConfig, HostConfig
    from cais.volumes.mounts import MountPoint

CGROUP_PARENT = "/cais"
SCOPE_PREFIX = "cais"
_INIT = "/sbin/docker-init"
# What runtimes of distributions know; crun before 1.8.2 takes no other.
_INLINED_VERSION = "1.0.2"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """The container's place on this host.

    Attributes:
        id: names the control group.
        host: from ``detect_host``.
        rootfs: the snapshot's mounts.
        mounts: resolved binds, volumes and tmpfs.
        files: ``/etc/hosts`` and its like: destination in the container to path on the host.
        namespaces: kind to path of a namespace to enter: ``network`` and with it ``user`` (made
            ready, or another container's), ``ipc``, ``pid`` (another container's).
        shm_path: the directory that is /dev/shm when it is shared.
        seccomp_dir: cache of compiled filters, of the daemon alone.
        cgroup_parent: where HostConfig.CgroupParent is empty.
        inlined: the document says all, for a runtime that does not read ``cais.json``.
        init_program: the file behind ``--init`` then.
        root: who the container's root is on the host, where it has a user namespace.

    """

    id: str
    host: Host
    rootfs: Sequence[Mount]
    seccomp_dir: Path
    mounts: Sequence[MountPoint] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    shm_path: str | None = None
    cgroup_parent: str = CGROUP_PARENT
    inlined: bool = False
    init_program: str | None = None
    root: tuple[int, int] | None = None


class Built(NamedTuple):
    """``config.json``, ``cais.json``, and sentences for the user."""

    config: Document
    cais: Document
    warnings: list[str]


def build_document(config: ContainerConfig, host_config: HostConfig, target: Target) -> Built:
    """Return the bundle of a container whose configuration was merged, checked and adapted.

    Blocks: the first container with a new filter waits for libseccomp (tens of milliseconds).

    Raises:
        InvalidArgumentError: what can only be seen now: a device that is gone, a bad profile.
        UnsupportedError: an option this version does not have.

    """
    options = parse_security_options(host_config.security_opt or ())
    process = build_process(own_program(config, host_config), host_config, options, target.host)
    document: Document = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": host_config.readonly_rootfs},
        "mounts": mounts.build_mounts(host_config, target.mounts, target.files, target.shm_path),
        "linux": _linux(config, host_config, target, options),
    }
    if host_config.uts_mode != "host":
        document["hostname"] = config.hostname or target.id[:12]
        if config.domainname:
            document["domainname"] = config.domainname
    if host_config.annotations:
        document["annotations"] = dict(host_config.annotations)
    wanted = filters.wanted(options, target.host, privileged=host_config.privileged)
    capabilities = process["capabilities"]["bounding"]
    extras = _cais(config, host_config, target)
    if wanted.profile is not None and (target.inlined or filters.has_listener(wanted.profile)):
        rules = filters.resolved(wanted.profile, target.host, capabilities)
        document["linux"]["seccomp"] = rules
    else:
        extras["seccomp"] = filters.compiled(wanted, target.host, capabilities, target.seccomp_dir)
    if target.inlined:
        _put_init_first(document, extras, target.init_program)
        _say_it_in_older_terms(document)
    return Built(document, extras, wanted.warnings)


def cgroup_path(host_config: HostConfig, container_id: str, parent: str = CGROUP_PARENT) -> str:
    """Return the container's control group: below its parent, whatever ``..`` says.

    Where ``parent`` is a slice, systemd makes the group, and the container's own parent is one too.
    """
    if parent.endswith(".slice"):
        return f"{host_config.cgroup_parent or parent}:{SCOPE_PREFIX}:{container_id}"
    return clean_path(posixpath.join("/", host_config.cgroup_parent or parent, container_id))


def _linux(
    config: ContainerConfig, host_config: HostConfig, target: Target, options: SecurityOptions
) -> Document:
    nodes, rules = devices.devices_and_rules(host_config)
    linux: Document = {
        "namespaces": namespaces.build_namespaces(config, host_config, target.namespaces),
        "cgroupsPath": cgroup_path(host_config, target.id, target.cgroup_parent),
        "resources": {**resources.resources_document(host_config), "devices": rules},
        "sysctl": namespaces.build_sysctls(host_config, is_remapped=target.root is not None),
    }
    if nodes:
        linux["devices"] = nodes
    if propagation := mounts.rootfs_propagation(target.mounts):
        linux["rootfsPropagation"] = propagation
    if options.system_paths:
        linux["maskedPaths"] = masks.masked_paths(host_config)
        linux["readonlyPaths"] = masks.read_only_paths(host_config)
    return linux


def _say_it_in_older_terms(document: Document) -> None:
    """Leave out what came after version 1.0: the domain name is a kernel parameter there."""
    document["ociVersion"] = _INLINED_VERSION
    if name := document.pop("domainname", None):
        document["linux"]["sysctl"].setdefault("kernel.domainname", name)


def _put_init_first(document: Document, extras: Document, program: str | None) -> None:
    """Run the command under ``--init`` as Docker does it: a file of the host's, mounted."""
    if extras.pop("init") and program is not None:
        document["process"]["args"][:0] = (_INIT, "--")
        options = ["bind", "ro"]
        document["mounts"].append(
            {"destination": _INIT, "type": "bind", "source": program, "options": options}
        )


def _cais(config: ContainerConfig, host_config: HostConfig, target: Target) -> Document:
    mapped = () if target.root is None else ("idmap",)
    return {
        "rootfs": [
            {
                "type": mount.type,
                "source": mount.source,
                "target": mount.target,
                "options": [*mount.options, *mapped],
            }
            for mount in target.rootfs
        ],
        "files": mounts.small_files(target.files, target.mounts),
        "user": config.user,
        "additional_groups": list(host_config.group_add or ()),
        # In another's pid namespace there is an init already.
        "init": bool(host_config.init) and not host_config.pid_mode,
        "network": target.namespaces.get("network"),
        "seccomp": None,
        "streams_owner": target.root,
    }
