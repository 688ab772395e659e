"""How a process of a container shall be: the first one, or one that joins it.

Spec: OCI runtime-spec 1.2, config.md "Process"; docs/architecture.md 3.2.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import credentials, rlimits
from cais.linux.credentials import Capabilities
from cais.linux.process import pid_of
from cais.runtime import bundles, filters, pipes, standing
from cais.spec.runtime import validate_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cais.runtime.filters import Filter
    from cais.runtime.seccomp_agent import Agent
    from cais.runtime.tuning import Tuning
    from cais.spec.runtime import Config, Process

_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_LEVELS = range(8)


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
        "streams_owner",
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
        self.streams_owner: tuple[int, int] | None = None
        self.in_user_namespace = standing.is_nested()
        self._check()

    def apply_extras(self, extras: Mapping[str, Any]) -> None:
        """Take over the user and groups as somebody typed them."""
        user = extras.get("user")
        if user is not None and not isinstance(user, str):
            raise InvalidArgumentError("user is not a string")
        groups = extras.get("additional_groups") or ()
        if not all(isinstance(group, str) for group in groups):
            raise InvalidArgumentError("additional_groups are not strings")
        self.user = user
        self.additional_groups = tuple(groups)

    def apply_container(self, config: Config, extras: Mapping[str, Any]) -> None:
        """Take over what the container decides for all its processes: filter and personality.

        Also for ``exec --privileged``: Docker gives it capabilities, not another filter.
        """
        linux = config.get("linux", {})
        kinds = (entry["type"] for entry in linux.get("namespaces", ()))
        self.in_user_namespace = self.in_user_namespace or "user" in kinds
        self.filter = filters.load(config, extras)
        self.streams_owner = pipes.parse_owner(extras.get("streams_owner"))
        personality = linux.get("personality")
        if personality:
            # Only here: few documents ask for one.
            from cais.linux.personality import parse_personality

            self.personality = parse_personality(
                personality["domain"], personality.get("flags", ())
            )

    def _check(self) -> None:
        if not self.cwd.startswith("/"):
            raise InvalidArgumentError(f"working directory {self.cwd!r} is not absolute")
        for item in self.env:
            if b"=" not in item:
                shown = os.fsdecode(item[:64])
                raise InvalidArgumentError(f'invalid environment variable: "{shown}"')
        has_nul = any("\0" in text for text in (*self.args, self.cwd))
        if has_nul or any(b"\0" in item for item in self.env):
            raise InvalidArgumentError("a NUL character in an argument or environment variable")


def load_exec(document: str, bundle: str) -> tuple[ProcessPlan, Config]:
    """Read an exec's document, ``{"process": ..., "user": ...}``, and its container's."""
    extras = bundles.load_exec(document)
    process = validate_process(extras["process"])
    plan = ProcessPlan(process)
    plan.apply_extras(extras)
    config = bundles.load_config(bundle)
    plan.tuning = load_tuning(process, config, is_exec=True)
    plan.apply_container(config, bundles.load_extras(bundle))
    return plan, config


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


def load_tuning(process: Process, config: Config, *, is_exec: bool) -> Tuning | None:
    """Return how a process is scheduled and its memory placed, None where nothing is said."""
    memory = config.get("linux", {}).get("memoryPolicy")
    if not memory and "scheduler" not in process and "execCPUAffinity" not in process:
        return None
    # Only here: few documents ask for any of it.
    from cais.runtime.tuning import Tuning

    return Tuning(process, memory, is_exec=is_exec)


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


def _size(process: Process) -> tuple[int, int] | None:
    entry = process.get("consoleSize")
    return (entry["height"], entry["width"]) if entry else None
