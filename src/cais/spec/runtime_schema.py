"""The tables ``cais.spec.runtime`` validates with: the specification's JSON schema, by hand.

Spec: OCI runtime-spec 1.2, schema/*.json for the types; config.md and config-linux.md for the
rules between members (``check_rules``).
"""

from __future__ import annotations

from cais.spec.schema import (
    array,
    boolean,
    filled,
    integer,
    made_of,
    mapping,
    matching,
    record,
    string,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.spec.runtime import Config, Linux, Process

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"
_SUFFIX = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+-")


def _is_version(text: str) -> bool:
    """Test for a version 1 of the specification, such as ``1.2.0`` and ``1.0.2-dev``."""
    numbers, mark, suffix = text.replace("+", "-", 1).partition("-")
    major, *rest = numbers.split(".")
    if mark and not (suffix and _SUFFIX.issuperset(suffix)):
        return False
    return major == "1" and len(rest) == 2 and all(n.isascii() and n.isdigit() for n in rest)


INT32 = integer(-(2**31), 2**31 - 1)
INT64 = integer(-(2**63), 2**63 - 1)
UINT16 = integer(0, 2**16 - 1)
UINT32 = integer(0, 2**32 - 1)
# -1, which is 2**32 - 1, means "as before" to setresuid(2) and chown(2), and that is root.
USER_ID = integer(0, 2**31 - 1)
UINT64 = integer(0, 2**64 - 1)
TEXT = string()
TEXTS = array(TEXT)
_CPU_LIST = string(lambda text: not text.strip("0123456789, -"))
PATH = string(filled)
ABSOLUTE = string(lambda text: text.startswith("/"))

_ID_MAPPINGS = array(record({"containerID": UINT32, "hostID": UINT32, "size": UINT32}, {}))
_ACTION = string(
    choices=tuple(
        f"SCMP_ACT_{name}"
        for name in (
            *("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO"),
            *("TRACE", "ALLOW", "LOG", "NOTIFY"),
        )
    )
)
_OPERATOR = string(
    choices=tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
)
_ARGUMENT = record({"index": integer(0, 5), "value": UINT64, "op": _OPERATOR}, {"valueTwo": UINT64})
SECCOMP = record(
    {"defaultAction": _ACTION},
    {
        "defaultErrnoRet": UINT32,
        "flags": array(string(made_of(_NAME, prefix="SECCOMP_FILTER_FLAG_"))),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "architectures": array(string(made_of(_NAME, prefix="SCMP_ARCH_"))),
        "syscalls": array(
            record(
                {"names": array(TEXT, at_least=1), "action": _ACTION},
                {"errnoRet": UINT32, "args": array(_ARGUMENT)},
            )
        ),
    },
)

_DEVICE_NUMBERS = {"major": INT64, "minor": INT64}
_THROTTLES = array(record(_DEVICE_NUMBERS, {"rate": UINT64}))
_BLOCK_IO = record(
    {},
    {
        "weight": UINT16,
        "leafWeight": UINT16,
        "weightDevice": array(record(_DEVICE_NUMBERS, {"weight": UINT16, "leafWeight": UINT16})),
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    },
)
_CPU = record(
    {},
    {
        "shares": UINT64,
        "quota": INT64,
        "burst": UINT64,
        "period": UINT64,
        "realtimeRuntime": INT64,
        "realtimePeriod": UINT64,
        "cpus": TEXT,
        "mems": TEXT,
        "idle": INT64,
    },
)
_MEMORY = record(
    {},
    {
        "limit": INT64,
        "reservation": INT64,
        "swap": INT64,
        "kernel": INT64,
        "kernelTCP": INT64,
        "swappiness": UINT64,
        "disableOOMKiller": boolean,
        "useHierarchy": boolean,
        "checkBeforeUpdate": boolean,
    },
)
_DEVICE_RULE = record(
    {"allow": boolean},
    {
        "type": string(choices=("", "a", "b", "c")),
        **_DEVICE_NUMBERS,
        "access": string(lambda text: not text.strip("rwm")),
    },
)
RESOURCES = record(
    {},
    {
        "devices": array(_DEVICE_RULE),
        "memory": _MEMORY,
        "cpu": _CPU,
        "pids": record({"limit": INT64}, {}),
        "blockIO": _BLOCK_IO,
        "hugepageLimits": array(
            record({"pageSize": string(matching("[1-9][0-9]*[KMG]B")), "limit": UINT64}, {})
        ),
        "network": record(
            {},
            {
                "classID": UINT32,
                "priorities": array(record({"name": TEXT, "priority": UINT32}, {})),
            },
        ),
        "rdma": mapping(record({}, {"hcaHandles": UINT32, "hcaObjects": UINT32})),
        "unified": mapping(TEXT),
    },
)

_NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
_CLOCKS = frozenset({"boottime", "monotonic"})
_TIME_OFFSET = record({}, {"secs": INT64, "nanosecs": UINT32})
LINUX = record(
    {},
    {
        "namespaces": array(record({"type": string(choices=_NAMESPACES)}, {"path": TEXT})),
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        "timeOffsets": mapping(_TIME_OFFSET),
        "devices": array(
            record(
                {"type": string(choices=("c", "b", "u", "p")), "path": PATH},
                {"fileMode": UINT32, **_DEVICE_NUMBERS, "uid": USER_ID, "gid": USER_ID},
            )
        ),
        "netDevices": mapping(record({}, {"name": TEXT})),
        "cgroupsPath": TEXT,
        "resources": RESOURCES,
        "rootfsPropagation": string(
            choices=tuple(
                recursion + kind
                for recursion in ("", "r")
                for kind in ("private", "shared", "slave", "unbindable")
            )
        ),
        "seccomp": SECCOMP,
        "sysctl": mapping(TEXT),
        "maskedPaths": array(ABSOLUTE),
        "readonlyPaths": array(ABSOLUTE),
        "mountLabel": TEXT,
        "intelRdt": record(
            {},
            {
                "closID": TEXT,
                "schemata": TEXTS,
                "l3CacheSchema": TEXT,
                "memBwSchema": TEXT,
                "enableMonitoring": boolean,
            },
        ),
        "memoryPolicy": record({}, {"mode": TEXT, "nodes": TEXT, "flags": TEXTS}),
        "personality": record({"domain": string(choices=("LINUX", "LINUX32"))}, {"flags": TEXTS}),
    },
)

_CAPABILITY_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")
PROCESS = record(
    {"cwd": ABSOLUTE},
    {
        "args": TEXTS,
        "env": TEXTS,
        "terminal": boolean,
        "consoleSize": record({"height": UINT64, "width": UINT64}, {}),
        "user": record(
            {},
            {
                "uid": USER_ID,
                "gid": USER_ID,
                "umask": UINT32,
                "additionalGids": array(USER_ID),
                "username": TEXT,
            },
        ),
        "capabilities": record({}, dict.fromkeys(_CAPABILITY_SETS, TEXTS)),
        "apparmorProfile": TEXT,
        "selinuxLabel": TEXT,
        "oomScoreAdj": integer(-1000, 1000),
        "noNewPrivileges": boolean,
        "rlimits": array(
            record(
                {"type": string(made_of(_NAME, prefix="RLIMIT_")), "soft": UINT64, "hard": UINT64},
                {},
            )
        ),
        "scheduler": record(
            {"policy": string(made_of(_NAME, prefix="SCHED_"))},
            {
                "nice": INT32,
                "priority": INT32,
                "flags": array(string(made_of(_NAME, prefix="SCHED_FLAG_"))),
                "runtime": UINT64,
                "deadline": UINT64,
                "period": UINT64,
            },
        ),
        "ioPriority": record(
            {
                "class": string(
                    choices=tuple(f"IOPRIO_CLASS_{name}" for name in ("RT", "BE", "IDLE"))
                )
            },
            {"priority": INT32},
        ),
        "execCPUAffinity": record({}, {"initial": _CPU_LIST, "final": _CPU_LIST}),
    },
)

_HOOKS = array(
    record({"path": ABSOLUTE}, {"args": TEXTS, "env": TEXTS, "timeout": integer(1, 2**31 - 1)})
)
_HOOK_POINTS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)
CONFIG = record(
    {"ociVersion": string(_is_version)},
    {
        "process": PROCESS,
        "root": record({"path": PATH}, {"readonly": boolean}),
        "hostname": TEXT,
        "domainname": TEXT,
        "mounts": array(
            record(
                {"destination": PATH},
                {
                    "type": TEXT,
                    "source": TEXT,
                    "options": TEXTS,
                    "uidMappings": _ID_MAPPINGS,
                    "gidMappings": _ID_MAPPINGS,
                },
            )
        ),
        "hooks": record({}, dict.fromkeys(_HOOK_POINTS, _HOOKS)),
        "annotations": mapping(TEXT),
        "linux": LINUX,
    },
)

_is_ipc_sysctl = matching(r"kernel\.(?:msgmax|msgmnb|msgmni|sem|shm\w+)|fs\.mqueue\.[\w.]+")
_UTS_SYSCTLS = ("kernel.hostname", "kernel.domainname")
_is_net_sysctl = matching(r"net(?:\.[\w:-]+(?:[./][\w:-]+)*)+")
_is_user_sysctl = matching(r"user\.[\w.]+")


def check_rules(document: Config, faults: list[str]) -> None:
    """Append the faults between members of a document whose types are right."""
    linux = document.get("linux", {})
    owned = _check_namespaces(linux, faults)
    if document.get("process"):
        check_process(document["process"], faults)
    if document.get("hostname") and "uts" not in owned:
        faults.append("hostname: needs a uts namespace")
    if document.get("domainname") and "uts" not in owned:
        faults.append("domainname: needs a uts namespace")
    if (linux.get("maskedPaths") or linux.get("readonlyPaths")) and "mount" not in owned:
        faults.append("linux.maskedPaths: need a mount namespace")
    if linux.get("timeOffsets") and "time" not in owned:
        faults.append("linux.timeOffsets: need a time namespace")
    strangers = linux.get("timeOffsets", {}).keys() - _CLOCKS
    faults += (f"linux.timeOffsets: {name[:64]!r} is no clock" for name in sorted(strangers))
    reasons = ((name, sysctl_fault(name, owned)) for name in linux.get("sysctl", {}))
    faults += (f"linux.sysctl[{name[:64]!r}]: {why}" for name, why in reasons if why)
    if ".." in linux.get("cgroupsPath", "").split("/"):
        faults.append("linux.cgroupsPath: must not contain '..'")


def check_process(process: Process, faults: list[str]) -> None:
    """Append what is wrong between the members of ``process``."""
    if not process.get("args"):
        faults.append("process.args: must not be empty")
    for index, limit in enumerate(process.get("rlimits", [])):
        if limit["soft"] > limit["hard"]:
            faults.append(f"process.rlimits[{index}]: soft limit above the hard limit")
    for index, entry in enumerate(process.get("env", [])):
        if entry.startswith("="):
            faults.append(f"process.env[{index}]: has no name")


def sysctl_fault(name: str, owned: frozenset[str] | set[str]) -> str | None:
    """Say why a container that has the namespaces ``owned`` may not set ``name``; None if it may.

    A name is dotted, or slashed as sysctl(8) allows; the runtime turns dots into slashes, so
    ``..``, empty parts and control characters never pass (CVE-2022-0811).
    """
    dotted = name.replace("/", ".") if "/" in name.split(".", 1)[0] else name
    if "" in dotted.replace("/", ".").split("."):  # ".." leaves empty parts, too
        return "is malformed"
    if _is_ipc_sysctl(dotted):
        return None if "ipc" in owned else "needs an ipc namespace"
    if _is_net_sysctl(dotted):
        return None if "network" in owned else "needs a network namespace"
    if dotted in _UTS_SYSCTLS:
        return None if "uts" in owned else "needs a uts namespace"
    if _is_user_sysctl(dotted):
        return None if "user" in owned else "needs a user namespace"
    return "is not in a separate kernel namespace"


def _check_namespaces(linux: Linux, faults: list[str]) -> set[str]:
    owned: set[str] = set()
    for index, namespace in enumerate(linux.get("namespaces", [])):
        where = f"linux.namespaces[{index}]"
        if namespace["type"] in owned:
            faults.append(f"{where}: a second {namespace['type']} namespace")
        if namespace.get("path", "/")[:1] not in ("/", ""):
            faults.append(f"{where}.path: must be absolute")
        owned.add(namespace["type"])
    mapped = bool(linux.get("uidMappings") or linux.get("gidMappings"))
    if mapped and "user" not in owned:
        faults.append("linux.uidMappings: need a user namespace")
    return owned
