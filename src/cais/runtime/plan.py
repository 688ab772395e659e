"""From the documents of a bundle to a plan: everything decided before a process exists.

All parsing, checking and encoding happens here, in the parent. The child then only makes system
calls, and a mistake in a document is the caller's error with nothing to clean up.

Spec: OCI runtime-spec 1.2; docs/architecture.md 3.2 for ``cais.json``.
"""

from __future__ import annotations

import os
import sys

from cais.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from cais.linux import credentials, mount, namespaces, rlimits
from cais.linux.credentials import Capabilities
from cais.linux.process import pid_of
from cais.runtime import filters, small_files, standing
from cais.runtime.devices import parse_devices
from cais.runtime.mounts import identity_map, label, parse_mount, parse_root_mount
from cais.runtime.root_plan import RootPlan
from cais.runtime.sysctls import parse_sysctls
from cais.spec import runtime as documents
from cais.spec import strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cais.runtime.filters import Filter
    from cais.runtime.hooks import Hooks
    from cais.runtime.seccomp_agent import Agent
    from cais.runtime.tuning import Tuning
    from cais.spec.runtime import Config, Process

_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_LEVELS = range(8)
_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}
_RESCTRL = "/sys/fs/resctrl/schemata"  # there when the host has it mounted


class ProcessPlan:
    """How a process of the container shall be, the first one or an exec'd one."""

    __slots__ = (
        "additional_groups",
        "apparmor",
        "args",
        "capabilities",
        "cwd",
        "env",
        "filter",
        "gid",
        "groups",
        "in_user_namespace",
        "init",
        "io_priority",
        "no_new_privileges",
        "oom_score_adj",
        "personality",
        "rlimits",
        "selinux",
        "size",
        "terminal",
        "tuning",
        "uid",
        "umask",
        "user",
        "warnings",
    )

    def __init__(self, process: Process) -> None:
        if process.get("commandLine"):
            raise UnsupportedError("process.commandLine is not supported")
        user = process.get("user", {})
        self.args = list(process["args"])
        self.env = [os.fsencode(item) for item in process.get("env", ())]
        self.cwd = process["cwd"]
        self.terminal = process.get("terminal", False)
        self.size = _size(process)
        self.uid, self.gid = user.get("uid", 0), user.get("gid", 0)
        self.groups: Sequence[int] = user.get("additionalGids", ())
        self.umask = user.get("umask", 0o022) & 0o777
        self.user: str | None = None
        self.additional_groups: Sequence[str] = ()
        self.no_new_privileges = process.get("noNewPrivileges", False)
        self.oom_score_adj = process.get("oomScoreAdj")
        self.apparmor = process.get("apparmorProfile", "")
        self.selinux = process.get("selinuxLabel", "")
        self.warnings: list[str] = []
        self.capabilities = _capabilities(process, self.warnings)
        self.rlimits = _rlimits(process)
        self.io_priority = _io_priority(process)
        self.personality: int | None = None
        self.tuning: Tuning | None = None
        self.filter: Filter | None = None
        self.init = False
        self.in_user_namespace = standing.is_nested()
        _check(self)


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
        apply_extras(self.process, extras)
        self.process.init = extras.get("init") is True
        self.process.tuning = _tuning(config["process"], config, is_exec=False)
        add_container_settings(self.process, config, extras)
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
    return ContainerPlan(load_config(bundle), load_extras(bundle), container_id, bundle)


def load_config(bundle: str) -> Config:
    """Read ``config.json`` of a bundle."""
    config = documents.parse_config(_read(f"{bundle}/config.json"))
    for part in ("process", "root"):
        if part not in config:
            raise InvalidArgumentError(f"config.json has no {part}")
    return config


def load_extras(bundle: str) -> Mapping[str, Any]:
    """Read ``cais.json`` of a bundle; empty when there is none."""
    try:
        extras = strict_json.loads(_read(f"{bundle}/cais.json"))
    except NotFoundError:
        return {}
    if not isinstance(extras, dict):
        raise InvalidArgumentError("cais.json is not an object")
    return extras


def load_exec(document: str, bundle: str) -> tuple[ProcessPlan, Config]:
    """Read an exec's document, ``{"process": ..., "user": ...}``, and its container's."""
    extras = strict_json.loads(_read(document), documents.CONFIG_LIMIT_BYTES)
    if not isinstance(extras, dict) or not isinstance(extras.get("process"), dict):
        raise InvalidArgumentError("the exec document has no process")
    process = documents.validate_process(extras["process"])
    plan = ProcessPlan(process)
    apply_extras(plan, extras)
    config = load_config(bundle)
    plan.tuning = _tuning(process, config, is_exec=True)
    add_container_settings(plan, config, load_extras(bundle))
    return plan, config


def load_hooks(container_id: str, bundle: str, config: Config) -> Hooks | None:
    """Return the hooks of a container, None when it has none."""
    document = config.get("hooks")
    if not document or not any(document.values()):
        return None
    # Only here: few documents have any.
    from cais.runtime.hooks import Hooks
    from cais.runtime.oci_state import StateFacts

    return Hooks(document, StateFacts(container_id, bundle, config))


def load_agent(
    plan: ProcessPlan, container_id: str, bundle: str, config: Config, *, init_pidfd: int = -1
) -> Agent | None:
    """Return who gets the listener of a process's filter, None where there is none.

    Args:
        plan: the process.
        container_id: of its container.
        bundle: likewise.
        config: likewise.
        init_pidfd: the container's first process, for an exec. Borrowed.

    """
    if plan.filter is None or not plan.filter.has_listener:
        return None
    # Only here: few profiles notify.
    from cais.runtime.oci_state import StateFacts
    from cais.runtime.seccomp_agent import Agent

    init_pid = pid_of(init_pidfd) if init_pidfd >= 0 else 0
    return Agent(plan.filter.profile, StateFacts(container_id, bundle, config), init_pid)


def apply_extras(plan: ProcessPlan, extras: Mapping[str, Any]) -> None:
    """Take over the user and groups as somebody typed them."""
    user = extras.get("user")
    if user is not None and not isinstance(user, str):
        raise InvalidArgumentError("user is not a string")
    groups = extras.get("additional_groups") or ()
    if not all(isinstance(group, str) for group in groups):
        raise InvalidArgumentError("additional_groups are not strings")
    plan.user = user
    plan.additional_groups = tuple(groups)


def add_container_settings(plan: ProcessPlan, config: Config, extras: Mapping[str, Any]) -> None:
    """Take over what the container decides for all its processes: filter and personality.

    Also for ``exec --privileged``: Docker gives it capabilities, not another filter.
    """
    linux = config.get("linux", {})
    kinds = (entry["type"] for entry in linux.get("namespaces", ()))
    plan.in_user_namespace = plan.in_user_namespace or "user" in kinds
    plan.filter = filters.load(config, extras)
    personality = linux.get("personality")
    if personality:
        # Only here: few documents ask for one.
        from cais.linux.personality import parse_personality

        plan.personality = parse_personality(personality["domain"], personality.get("flags", ()))


def _root(config: Config, extras: Mapping[str, Any], bundle: str, own: set[str]) -> RootPlan:
    linux = config.get("linux", {})
    plan = RootPlan(bundle)
    plan.layers = [parse_root_mount(entry) for entry in extras.get("rootfs") or ()]
    plan.path = os.path.join(bundle, config["root"]["path"])
    plan.read_only = config["root"].get("readonly", False)
    plan.mounts = [parse_mount(entry, bundle) for entry in config.get("mounts", ())]
    if linux.get("intelRdt"):
        _check_rdt()
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


def _check_rdt() -> None:
    if not os.path.exists(_RESCTRL):
        raise UnsupportedError(
            "intelRdt is specified in config, but Intel RDT is not supported or enabled"
        )
    raise UnsupportedError("linux.intelRdt is not supported")


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


def _capabilities(process: Process, warnings: list[str]) -> Capabilities:
    sets = process.get("capabilities", {})
    unknown: dict[str, None] = {}

    def mask(names: Sequence[str]) -> int:
        value, strangers = credentials.mask_of(names)
        unknown.update(dict.fromkeys(strangers))
        return value

    result = Capabilities(
        mask(sets.get("bounding", ())),
        mask(sets.get("permitted", ())),
        mask(sets.get("effective", ())),
        mask(sets.get("inheritable", ())),
        mask(sets.get("ambient", ())),
    )
    if unknown:
        warnings.append(f"ignoring unknown capabilities: {', '.join(unknown)}")
    return result


def _rlimits(process: Process) -> list[tuple[str, int, int]]:
    limits: dict[str, tuple[str, int, int]] = {}
    for entry in process.get("rlimits", ()):
        name, soft, hard = entry["type"], entry["soft"], entry["hard"]
        if name not in rlimits.NAMES:
            raise InvalidArgumentError(f"invalid rlimit type: {name}")
        if name in limits:
            raise InvalidArgumentError(f"rlimit {name} is given twice")
        if soft > hard:
            raise InvalidArgumentError(
                f"rlimit {name}: soft limit {soft} is over hard limit {hard}"
            )
        limits[name] = (name, soft, hard)
    return list(limits.values())


def _io_priority(process: Process) -> tuple[int, int] | None:
    entry = process.get("ioPriority")
    if entry is None:
        return None
    level = entry.get("priority", 0)
    if level not in _IO_LEVELS:
        raise InvalidArgumentError(f"invalid ioPriority.Priority: {level}")
    return _IO_CLASSES[entry["class"]], level


def _tuning(process: Process, config: Config, *, is_exec: bool) -> Tuning | None:
    memory = config.get("linux", {}).get("memoryPolicy")
    if not memory and "scheduler" not in process and "execCPUAffinity" not in process:
        return None
    # Only here: few documents ask for any of it.
    from cais.runtime.tuning import Tuning

    return Tuning(process, memory, is_exec=is_exec)


def _size(process: Process) -> tuple[int, int] | None:
    entry = process.get("consoleSize")
    return (entry["height"], entry["width"]) if entry else None


def _check(plan: ProcessPlan) -> None:
    if not plan.cwd.startswith("/"):
        raise InvalidArgumentError(f"working directory {plan.cwd!r} is not absolute")
    for item in plan.env:
        if b"=" not in item:
            shown = os.fsdecode(item[:64])
            raise InvalidArgumentError(f'invalid environment variable: "{shown}"')
    if any("\0" in text for text in (*plan.args, plan.cwd)) or any(b"\0" in e for e in plan.env):
        raise InvalidArgumentError("a NUL character in an argument or environment variable")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # 0: a pipe, or a file of /proc
            return file.read(min(size or sys.maxsize, documents.CONFIG_LIMIT_BYTES) + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
