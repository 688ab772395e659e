"""From the documents of a bundle to a plan: everything decided before a process exists.

All parsing, checking and encoding happens here, in the parent. The child then only makes system
calls, and a mistake in a document is the caller's error with nothing to clean up.

Spec: OCI runtime-spec 1.2; docs/architecture.md 3.2 for ``cais.json``.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import mount, namespaces
from cais.runtime import bundles, small_files, standing
from cais.runtime.devices import parse_devices
from cais.runtime.mounts import identity_map, label, parse_mount, parse_root_mount
from cais.runtime.process_plan import ProcessPlan, load_agent, load_tuning
from cais.runtime.root_plan import RootPlan
from cais.runtime.sysctls import parse_sysctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cais.runtime.hooks import Hooks
    from cais.spec.runtime import Config

_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}


class ContainerPlan:
    """A container: its namespaces, root and first process."""

    __slots__ = (
        "agent",
        "cgroup",
        "config",
        "domain_name",
        "gid_map",
        "hooks",
        "host_name",
        "join",
        "net_devices",
        "new",
        "process",
        "root",
        "time_offsets",
        "uid_map",
        "user_path",
    )

    def __init__(
        self, config: Config, extras: Mapping[str, Any], container_id: str, bundle: str
    ) -> None:
        linux = config.get("linux", {})
        self.config = config
        self.new, self.join = _namespaces(config)
        self.host_name = config.get("hostname", "")
        self.domain_name = config.get("domainname", "")
        self.cgroup = linux.get("cgroupsPath") or default_cgroup(container_id)
        self.user_path = self.join.pop("user", "")
        self.uid_map = identity_map(linux.get("uidMappings", ()))
        self.gid_map = identity_map(linux.get("gidMappings", ()))
        self.time_offsets = {
            clock: (offset.get("secs", 0), offset.get("nanosecs", 0))
            for clock, offset in linux.get("timeOffsets", {}).items()
        }
        self.process = ProcessPlan(config["process"])
        self.process.apply_extras(extras)
        self.process.init = extras.get("init") is True
        self.process.tuning = load_tuning(config["process"], config, is_exec=False)
        self.process.apply_container(config, extras)
        self.hooks = load_hooks(container_id, bundle, config)
        self.agent = load_agent(self.process, container_id, bundle, config)
        self.net_devices = _net_devices(
            linux.get("netDevices", {}),
            has_network="network" in self._own_names(linux.get("netDevices")),
        )
        own = self._own_names(linux.get("sysctl"))
        self.root = _root(config, extras, bundle, own)
        self._check()

    def new_names(self) -> list[str]:
        """Return the OCI names of the namespaces to be made."""
        return [name for name, (flag, _) in namespaces.KINDS.items() if self.new & flag]

    def _own_names(self, wanted: object) -> set[str]:
        """Return the OCI names of the namespaces that are not the runtime's; none if not wanted.

        One by path may well be the runtime's own, whose parameters and devices are the host's.
        """
        if not wanted:
            return set()
        joined = {
            kind for kind, path in self.join.items() if not namespaces.is_of("self", kind, path)
        }
        return {*self.new_names(), *joined}

    @property
    def has_user_namespace(self) -> bool:
        """Whether the container gets a user namespace of its own."""
        return bool(self.new & namespaces.CLONE_NEWUSER)

    @property
    def in_user_namespace(self) -> bool:
        """Whether the container's root is not the runtime's."""
        return self.has_user_namespace or bool(self.user_path)

    def _check(self) -> None:
        if not self._has("mount"):
            raise UnsupportedError("a container without a mount namespace of its own")
        mounts = self.join.get("mount", "")
        if mounts and any(namespaces.is_of(pid, "mount", mounts) for pid in ("self", "1")):
            raise InvalidArgumentError(f"mount namespace {mounts} is the host's own")
        if self.has_user_namespace and mounts:
            text = "a mount namespace by path does not belong to a new user namespace"
            raise InvalidArgumentError(text)
        if standing.is_ordinary_user() and not self.in_user_namespace:
            raise InvalidArgumentError("rootless container requires user namespaces")
        if self.time_offsets and not self.new & namespaces.CLONE_NEWTIME:
            raise InvalidArgumentError("linux.timeOffsets need a time namespace that is new")
        if self.has_user_namespace and not (self.uid_map and self.gid_map):
            raise InvalidArgumentError("a user namespace needs uidMappings and gidMappings")
        own = self._own_names(self.host_name or self.domain_name)
        if self.host_name and "uts" not in own:
            raise InvalidArgumentError("unable to set hostname without a private UTS namespace")
        if self.domain_name and "uts" not in own:
            raise InvalidArgumentError("unable to set domainname without a private UTS namespace")

    def _has(self, name: str) -> bool:
        return bool(self.new & namespaces.KINDS[name][0]) or name in self.join


def default_cgroup(container_id: str) -> str:
    """Return the control group of a container whose document names none."""
    return f"/cais/{container_id}"


def load_container(container_id: str, bundle: str) -> ContainerPlan:
    """Read and check the documents of a bundle.

    Raises:
        NotFoundError: no ``config.json``.
        InvalidArgumentError: a document is wrong.
        UnsupportedError: it asks for something this runtime does not do.

    """
    return ContainerPlan(
        bundles.load_config(bundle), bundles.load_extras(bundle), container_id, bundle
    )


def load_hooks(container_id: str, bundle: str, config: Config) -> Hooks | None:
    """Return the hooks of a container, None when it has none."""
    document = config.get("hooks")
    if not document or not any(document.values()):
        return None
    # Only here: few documents have any.
    from cais.runtime.hooks import Hooks
    from cais.runtime.oci_state import StateFacts

    return Hooks(document, StateFacts(container_id, bundle, config))


def _root(config: Config, extras: Mapping[str, Any], bundle: str, own: set[str]) -> RootPlan:
    linux = config.get("linux", {})
    plan = RootPlan(bundle)
    plan.layers = [parse_root_mount(entry) for entry in extras.get("rootfs") or ()]
    plan.path = os.path.join(bundle, config["root"]["path"])
    plan.read_only = config["root"].get("readonly", False)
    plan.mounts = [parse_mount(entry, bundle) for entry in config.get("mounts", ())]
    if linux.get("mountLabel"):
        _check_selinux()
        label(plan.mounts, linux["mountLabel"])
    small_files.load(plan.mounts, extras.get("files", []))
    plan.masked = linux.get("maskedPaths", ())
    plan.read_only_paths = linux.get("readonlyPaths", ())
    plan.devices = parse_devices(linux.get("devices", ()))
    plan.sysctls = parse_sysctls(linux.get("sysctl", {}), own)
    propagation = linux.get("rootfsPropagation", "rprivate")
    plan.propagation = (_PROPAGATION[propagation.removeprefix("r")], propagation[0] == "r")
    return plan


def _net_devices(entries: Mapping[str, dict[str, str]], *, has_network: bool) -> Mapping[str, str]:
    if not entries:
        return {}
    if not has_network:
        raise InvalidArgumentError("linux.netDevices need a network namespace")
    # Only here: few documents name any.
    from cais.runtime import net_devices

    return net_devices.parse_devices(entries)


def _check_selinux() -> None:
    if not os.path.exists("/sys/fs/selinux/enforce"):
        raise UnsupportedError("linux.mountLabel was given, but selinux is not enabled on the host")


def _namespaces(config: Config) -> tuple[int, dict[str, str]]:
    new = 0
    join: dict[str, str] = {}
    for entry in config.get("linux", {}).get("namespaces", ()):
        kind, path = entry["type"], entry.get("path")
        if path:
            join[kind] = path
        else:
            new |= namespaces.KINDS[kind][0]
    return new, join
