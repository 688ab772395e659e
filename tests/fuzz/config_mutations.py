"""Broken, hostile and merely odd ``config.json`` documents, made from good ones.

Every document follows from its seed alone, so a failure is repeated by its number. Values come
from a vocabulary of what tends to break such code; none of them names a thing of the host that a
runtime doing as told would change.
"""

from __future__ import annotations

import copy
import json
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
    *("0-1", "0-", "9999", "0,,1", "b 1:1 rwm", "c", "u", "p", "rslave", "shared"),
)
_NUMBERS = (
    *(0, 1, -1, 2, 3, 5, 64, 127, 255, 256, 1023, 4096, 65535, 65536, 999999, 10**7, 2**31 - 1),
    *(2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63)),
    *(10**400, 0.5, -0.0, 1e300),
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": ""}, [None], {"a": None})
_TEXT_DAMAGE = b'\0\xff\x80{}[]",:\\ \n0-9eE.tfn'


def seeds() -> list[dict[str, Any]]:
    """Return the good documents: as small as can be, as Docker has it, and with all there is."""
    return [_least(), _usual(), _full(), _with_users()]


def mutate(rng: random.Random, documents: list[dict[str, Any]]) -> bytes:
    """Return the text of one document: one to four changes to a good one, or damage to its text."""
    document = copy.deepcopy(rng.choice(documents))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        _change(rng, document, documents)
    text = json.dumps(document).encode()
    if rng.random() < 0.05:
        text = _damaged(rng, text)
    return text


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
        for point in ("prestart", "createRuntime", "createContainer", "startContainer", "poststop")
    }
    process, linux = document["process"], document["linux"]
    process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 4}
    process["execCPUAffinity"] = {"initial": "0", "final": "0-1"}
    document["mounts"] += [
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        {"destination": "/b", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]},
        {"destination": "/r", "source": "/proc/self/ns", "options": ["rbind", "rprivate"]},
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
    return document
