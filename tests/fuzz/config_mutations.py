"""Broken, hostile and merely odd documents, made from good ones.

They are ``config.json``, and what commands take besides: the process of an exec, new limits.

Every document follows from its seed alone, so a failure is repeated by its number. Values come
from a vocabulary of what tends to break such code; none of them names a thing of the host that a
runtime doing as told would change. So the seeds have every member of the specification's schemas
for Linux but one, ``cgroupsPath``: any text there is a group of the host.
"""

from __future__ import annotations

import copy
import json
import posixpath
from typing import TYPE_CHECKING, Any

from cais.testing.bundles import DOCKER_CAPABILITIES, MASKED, READ_ONLY

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    Path = tuple[str | int, ...]

_STRINGS = (
    *("", "/", ".", "..", "../..", "//", "/..", "a", "/a/b/../c", "rootfs", "rootfs/bin"),
    *("/bin/sh", "\0", "a\0b", "a\nb", "\x7f", "\udc80", "\u202e", "é" * 200, "x" * 5000),
    *("/x" * 3000, " ", "=", "a=", "%s%n", "{}", "-1", "0", "1e9", "true", "null"),
    *("/proc/self/exe", "/proc/self/fd/3", "/dev/fd/1", "/proc/sys/kernel", "/etc/passwd"),
    *("/proc/self/attr/exec", "/dev/pts", "/dev/console", "/dev/null"),
    *("tmpfs", "bind", "proc", "sysfs", "cgroup", "mqueue", "devpts", "overlay", "ext4", "none"),
    *("ro", "rw", "rbind", "bind", "rro", "rprivate", "rshared", "unbindable", "nosuid", "noexec"),
    *("tmpcopyup", "idmap", "ridmap", "size=1k", "size=-1", "mode=9999", "mode=0777"),
    *("lowerdir=/", "remount", "relatime", "nosymfollow", "uid=0", "gid=4294967295"),
    *("mount", "pid", "network", "ipc", "uts", "user", "cgroup", "time"),
    *("CAP_SYS_ADMIN", "CAP_NOTHING", "cap_kill", "CAP_CHECKPOINT_RESTORE"),
    *("RLIMIT_NOFILE", "RLIMIT_X", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL"),
    *("SCMP_ACT_NOTIFY", "SCMP_CMP_EQ", "SCMP_ARCH_X86", "SECCOMP_FILTER_FLAG_LOG"),
    *("execve", "mkdir", "no_such_call", "net.ipv4.ip_forward", "kernel.msgmax", "kernel.shmmax"),
    *("kernel/../../x", "net..x", "net", "SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"),
    *("IOPRIO_CLASS_BE", "LINUX32", "MPOL_BIND", "1.2.0", "1.0", "2.0.0"),
    *("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE", "SCHED_FLAG_RESET_ON_FORK", "MPOL_INTERLEAVE"),
    *("MPOL_LOCAL", "MPOL_F_STATIC_NODES", "ADDR_NO_RANDOMIZE", "UNAME26", "lo", "veth%d"),
    *("rnosuid", "rnoatime", "rsuid", "sync", "dirsync", "lazytime", "runbindable"),
    *("0-1", "0-", "9999", "0,,1", "b 1:1 rwm", "c", "u", "p", "rslave", "shared"),
)
_NUMBERS = (
    *(0, 1, -1, 2, 3, 5, 64, 127, 255, 256, 1023, 4096, 65535, 65536, 999999, 10**7, 2**31 - 1),
    *(2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63)),
    *(10**400, 0.5, -0.0, 1e300),
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": ""}, [None], {"a": None})
_HOOK_POINTS = (
    *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
)
_TEXT_DAMAGE = b'\0\xff\x80{}[]",:\\ \n0-9eE.tfn'


# What the runner keeps open for the documents: namespaces of a neighbour and of another user, and
# a network device.
NEIGHBOUR = {
    kind: f"/proc/self/fd/{900 + index}"
    for index, kind in enumerate(("network", "ipc", "uts", "cgroup", "time", "pid", "mount"))
}
OTHER_USER = "/proc/self/fd/950"
DEVICE = "fuzz0"


def seeds() -> list[dict[str, Any]]:
    """Return the good documents: as small as can be, as Docker has it, and with all there is."""
    return [
        *(_least(), _usual(), _full(), _with_users(), _rarer(), _beside_others()),
        *(_of_another_user(), _elsewhere()),
    ]


def mutate(rng: random.Random, documents: list[dict[str, Any]]) -> bytes:
    """Return the text of one document: one to four changes to a good one, or damage to its text."""
    document = copy.deepcopy(rng.choice(documents))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        _change(rng, document, documents)
    _keep_at_home(document)
    _keep_the_killer(document)
    text = json.dumps(document).encode()
    if rng.random() < 0.05:
        text = _damaged(rng, text)
    return text


def mutate_process(rng: random.Random, documents: list[dict[str, Any]]) -> bytes:
    """Return the text of a process document, as ``exec --process`` takes it."""
    return _mutate_part(rng, [document["process"] for document in documents])


def mutate_resources(rng: random.Random, documents: list[dict[str, Any]]) -> bytes:
    """Return the text of a document of limits, as ``update --resources`` takes it."""
    parts = (document["linux"].get("resources") for document in documents)
    return _mutate_part(rng, [part for part in parts if part])


def _mutate_part(rng: random.Random, parts: list[dict[str, Any]]) -> bytes:
    holder = {"part": copy.deepcopy(rng.choice(parts))}  # so that the whole may change too
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, holder, parts)
    part = holder.get("part", holder)
    _keep_the_killer({"linux": {"resources": part}})
    text = json.dumps(part).encode()
    return _damaged(rng, text) if rng.random() < 0.05 else text


def _keep_at_home(document: Any) -> None:
    """Change a root that is not below the bundle: the runtime would make its links in there."""
    root = document.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    if isinstance(path, str) and not posixpath.normpath(f"/b/{path}").startswith("/b/"):
        root["path"] = "rootfs/nowhere"
    if isinstance(path, str) and path.startswith("/"):
        root["path"] = "rootfs/bin"


def _keep_the_killer(document: Any) -> None:
    """Take the limits from a group without an OOM killer: a start in it would wait for ever."""
    for place in ("linux", "resources", "memory"):
        document = document.get(place) if isinstance(document, dict) else None
    if isinstance(document, dict) and document.get("disableOOMKiller"):
        document.pop("limit", None)
        document.pop("swap", None)


def _change(rng: random.Random, document: Any, documents: list[dict[str, Any]]) -> None:
    places = list(_places(document))
    if not places:
        return
    *parents, last = rng.choice(places)
    holder = document
    for step in parents:
        holder = holder[step]
    operation = rng.choice(_OPERATIONS)
    operation(rng, holder, last, documents)


def _replace(rng: random.Random, holder: Any, key: Any, _: object) -> None:
    holder[key] = _value_like(rng, holder[key])


def _replace_by_anything(rng: random.Random, holder: Any, key: Any, _: object) -> None:
    holder[key] = copy.deepcopy(rng.choice((*_STRINGS, *_NUMBERS, *_OTHERS)))


def _delete(_rng: random.Random, holder: Any, key: Any, _: object) -> None:
    del holder[key]


def _repeat(_rng: random.Random, holder: Any, key: Any, _: object) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}x"] = copy.deepcopy(holder[key])


def _rename(rng: random.Random, holder: Any, key: Any, _: object) -> None:
    if isinstance(holder, dict):
        holder[rng.choice(_STRINGS)] = holder.pop(key)
    else:
        rng.shuffle(holder)


def _nest(rng: random.Random, holder: Any, key: Any, _: object) -> None:
    for _level in range(rng.choice((1, 2, 150))):
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}


def _transplant(rng: random.Random, holder: Any, key: Any, documents: Any) -> None:
    donor = rng.choice(documents)
    *parents, last = rng.choice(list(_places(donor)))
    for step in parents:
        donor = donor[step]
    holder[key] = copy.deepcopy(donor[last])


def _grow(rng: random.Random, holder: Any, key: Any, _: object) -> None:
    value = holder[key]
    if isinstance(value, list) and value:
        holder[key] = [
            copy.deepcopy(rng.choice(value)) for _item in range(rng.choice((2, 30, 300)))
        ]
    elif isinstance(value, str):
        holder[key] = value * rng.choice((2, 50, 2000))


_OPERATIONS: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    *(_replace, _replace, _replace, _replace_by_anything, _delete, _repeat),
    *(_rename, _nest, _transplant, _grow),
)


def _value_like(rng: random.Random, old: object) -> Any:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return rng.choice(_NUMBERS)
    if isinstance(old, str):
        return rng.choice(_STRINGS)
    return copy.deepcopy(rng.choice(_OTHERS))


def _places(value: object, here: Path = ()) -> list[Path]:
    """Return the path of every member and item of a document."""
    if isinstance(value, dict):
        items: list[tuple[str | int, object]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return []
    found: list[Path] = []
    for key, child in items:
        found.append((*here, key))
        found += _places(child, (*here, key))
    return found


def _damaged(rng: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(rng.choice((1, 1, 3, 20))):
        place = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[place] = rng.choice(_TEXT_DAMAGE)
        elif how == 1:
            del data[place : place + rng.choice((1, 5, 100))]
        elif how == 2:
            data[place:place] = data[place : place + rng.choice((1, 20, 400))]
        else:
            data[place:place] = bytes([rng.choice(_TEXT_DAMAGE)])
        if not data:
            return b""
    return bytes(data)


def _namespaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind} for kind in kinds]


def _least() -> dict[str, Any]:
    return {
        "ociVersion": "1.2.0",
        "process": {"args": ["/bin/true"], "cwd": "/", "env": []},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": _namespaces("mount", "pid")},
    }


def _usual() -> dict[str, Any]:
    def mount(place: str, kind: str, *options: str) -> dict[str, Any]:
        return {"destination": place, "type": kind, "source": kind, "options": list(options)}

    sets = dict.fromkeys(("bounding", "permitted", "effective"), DOCKER_CAPABILITIES)
    return {
        **_least(),
        "process": {
            "args": ["true"],
            "cwd": "/",
            "env": ["PATH=/bin:/sbin", "A=b"],
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10], "umask": 18},
            "capabilities": copy.deepcopy(sets),
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}],
            "noNewPrivileges": True,
            "oomScoreAdj": 10,
        },
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "newinstance", "ptmxmode=0666", "mode=0620"),
            mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
            mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        ],
        "linux": {
            "namespaces": _namespaces("mount", "pid", "network", "uts", "ipc", "cgroup"),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            "resources": {
                "memory": {"limit": 64 << 20, "swap": 64 << 20},
                "cpu": {"shares": 512, "quota": 50000, "period": 100000},
                "pids": {"limit": 32},
                "devices": [{"allow": False, "access": "rwm"}],
            },
        },
    }


def _full() -> dict[str, Any]:
    document = _usual()
    document["domainname"] = "example"
    document["annotations"] = {"org.example.key": "value"}
    document["hooks"] = {
        point: [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]
        for point in _HOOK_POINTS
    }
    process, linux = document["process"], document["linux"]
    process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 4}
    process["execCPUAffinity"] = {"initial": "0", "final": "0-1"}
    document["mounts"] += [
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        {"destination": "/b", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]},
        {"destination": "/r", "source": "/proc/self/ns", "options": ["rbind", "rprivate", "rro"]},
        {"destination": "/bin", "type": "tmpfs", "options": ["tmpcopyup", "size=9m", "sync"]},
    ]  # fmt: skip
    linux["namespaces"] += _namespaces("time")
    linux["timeOffsets"] = {"monotonic": {"secs": 100, "nanosecs": 5}, "boottime": {"secs": 7}}
    linux["sysctl"] = {"net.ipv4.ip_forward": "0", "kernel.msgmax": "8192"}
    linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0}
    ]
    linux["rootfsPropagation"] = "rslave"
    linux["personality"] = {"domain": "LINUX"}
    linux["resources"]["hugepageLimits"] = []
    linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    )
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 13,
                "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    return document


def _with_users() -> dict[str, Any]:
    document = _usual()
    linux = document["linux"]
    linux["namespaces"] += _namespaces("user")
    mapping = {"containerID": 0, "hostID": 100000, "size": 65536}
    linux["uidMappings"], linux["gidMappings"] = [dict(mapping)], [dict(mapping)]
    document["mounts"] += [
        {"destination": "/bin", "source": "rootfs/bin", "options": ["rbind", "ridmap", "rnoatime"]}
    ]
    return document


def _rarer() -> dict[str, Any]:
    """Return what few documents ask for and this machine can do."""
    document = _usual()
    process, linux = document["process"], document["linux"]
    process.update({"terminal": True, "consoleSize": {"height": 24, "width": 80}})
    process["user"]["username"] = "root"
    process["capabilities"].update({"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]})
    process["scheduler"] = {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    document["root"]["readonly"] = False
    mapping = {"containerID": 0, "hostID": 1000, "size": 10}
    document["mounts"] += [
        {
            "destination": "/i",
            "type": "bind",
            "source": "rootfs/bin",
            "options": ["bind", "idmap", "ro", "rnosuid"],
            "uidMappings": [dict(mapping)],
            "gidMappings": [dict(mapping)],
        }
    ]
    linux["netDevices"] = {DEVICE: {"name": "eth%d"}}
    linux["memoryPolicy"] = {"mode": "MPOL_DEFAULT", "nodes": "", "flags": []}
    linux["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
    linux["resources"]["memory"].update(
        {"reservation": 1 << 20, "disableOOMKiller": False, "checkBeforeUpdate": True}
    )
    linux["resources"]["cpu"].update({"burst": 0, "idle": 0, "cpus": "0", "mems": "0"})
    return document


def _beside_others() -> dict[str, Any]:
    """Return a container in namespaces of another, with hooks to be run around it."""
    document = _usual()
    hook = {"path": "/bin/true"}
    document["hooks"] = {"createContainer": [dict(hook)], "startContainer": [dict(hook)]}
    document["linux"]["namespaces"] = [
        {"type": "mount"},
        *({"type": kind, "path": path} for kind, path in NEIGHBOUR.items() if kind != "mount"),
    ]
    return document


def _of_another_user() -> dict[str, Any]:
    """Return a container in a user namespace that there is."""
    document = _usual()
    document["linux"]["namespaces"] += [
        {"type": "user", "path": OTHER_USER},
        {"type": "time"},
    ]
    document["linux"]["timeOffsets"] = {"boottime": {"secs": 1, "nanosecs": 1}}
    return document


def _elsewhere() -> dict[str, Any]:
    """Return what needs other hardware, another kernel or somebody listening; refused as it is."""
    document = _usual()
    process, linux = document["process"], document["linux"]
    process.update({"apparmorProfile": "box", "selinuxLabel": "system_u:system_r:box_t:s0"})
    process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "nice": 0,
        "priority": 0,
        "runtime": 10**7,
        "deadline": 10**8,
        "period": 10**8,
    }
    linux["namespaces"][1]["path"] = NEIGHBOUR["mount"]
    linux["mountLabel"] = process["selinuxLabel"]
    linux["intelRdt"] = {
        "closID": "box",
        "schemata": ["MB:0=70"],
        "l3CacheSchema": "L3:0=f",
        "memBwSchema": "MB:0=70",
        "enableMonitoring": True,
    }
    linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "listenerPath": "/run/no-such-agent",
        "listenerMetadata": "box",
        "syscalls": [
            {
                "names": ["mkdir"],
                "action": "SCMP_ACT_NOTIFY",
                "args": [{"index": 1, "value": 7, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
            }
        ],
    }
    _ask_for_rare_limits(linux["resources"])
    return document


def _ask_for_rare_limits(resources: dict[str, Any]) -> None:
    node = {"major": 8, "minor": 0}
    throttles = [{**node, "rate": 1 << 20}]
    resources["memory"].update(
        {"kernel": -1, "kernelTCP": -1, "swappiness": 60, "useHierarchy": True}
    )
    resources["cpu"].update({"realtimeRuntime": 95000, "realtimePeriod": 100000})
    resources["blockIO"] = {
        "weight": 100,
        "leafWeight": 100,
        "throttleReadBpsDevice": throttles,
        "weightDevice": [{**node, "weight": 100, "leafWeight": 100}],
        "throttleWriteBpsDevice": throttles,
        "throttleReadIOPSDevice": throttles,
        "throttleWriteIOPSDevice": throttles,
    }
    resources["hugepageLimits"] = [{"pageSize": "2MB", "limit": 0}]
    resources["network"] = {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}
    resources["rdma"] = {"mlx5_1": {"hcaHandles": 1, "hcaObjects": 10}}
    resources["unified"] = {"memory.high": "max"}
