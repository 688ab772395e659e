"""What ``cais-runtime`` reads and prints: logs, tables, documents, names of signals and limits."""

from __future__ import annotations

import os
import sys
import time

from cais.errors import InvalidArgumentError
from cais.linux import credentials, namespaces, signals
from cais.runtime.mounts import known_options
from cais.spec import json_text
from cais.spec.runtime import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from cais.runtime.arguments import Arguments
    from cais.spec.runtime import Process, Resources

USAGE = """usage: cais-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND ...

commands: create start run exec state kill delete list ps pause resume update spec features
The flags of each command are runc's.
"""
# flag of update -> (part of resources, member)
LIMITS = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "pids-limit": ("pids", "limit"),
    "blkio-weight": ("blockIO", "weight"),
}
_TEXT_LIMITS = frozenset({"cpuset-cpus", "cpuset-mems"})


class Log:
    """Where errors and warnings go: stderr, and with ``--log`` a file that callers parse."""

    def __init__(self, path: str = "", form: str = "") -> None:
        self._path = path
        self._json = form == "json"

    def failure(self, text: str) -> None:
        """Report what failed."""
        self._write("error", text)
        sys.stderr.write(f"cais-runtime: {text}\n")

    def notice(self, text: str) -> None:
        """Report what was done in another way than asked."""
        self._write("warning", text)
        if not self._path:
            sys.stderr.write(f"cais-runtime: warning: {text}\n")

    def _write(self, level: str, text: str) -> None:
        if not self._path:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json_text.encode({"level": level, "msg": text, "time": now})
        else:
            line = f'time="{now}" level={level} msg={json_text.encode(text)}'
        with open(self._path, "a") as file:
            file.write(line + "\n")


def version() -> str:
    """Return the text of ``--version``."""
    # Only here: reading a package's metadata costs more than starting a container.
    from importlib import metadata

    return f"cais-runtime version {metadata.version('cais')}\nspec: {OCI_VERSION}\n"


def parse_signal(text: str) -> int:
    """Return the number of ``TERM``, ``SIGTERM``, ``15``.

    Raises:
        InvalidArgumentError: no such signal.

    """
    if text.isascii() and text.isdigit():
        number = int(text)
        if 0 < number < signals.NSIG:
            return number
    name = text.upper()
    found = signals.find_number(name if name.startswith("SIG") else f"SIG{name}")
    if found is None:
        raise InvalidArgumentError(f'unknown signal "{text}"')
    return found


def exec_document(given: Arguments, process: Process) -> dict[str, Any]:
    """Return the document of an exec from its flags and the container's process."""
    if given.has("process"):
        with open(given.text("process"), "rb") as file:
            return {"process": json_text.decode(file.read())}
    if len(given.rest) < 2:
        raise InvalidArgumentError("process args cannot be empty")
    wanted: dict[str, Any] = {**process, "args": given.rest[1:], "terminal": given.has("tty")}
    wanted["env"] = [*process.get("env", []), *given.values("env")]
    wanted["cwd"] = given.text("cwd") or process["cwd"]
    if given.has("no-new-privs"):
        wanted["noNewPrivileges"] = True
    if given.has("cap"):
        sets: dict[str, Any] = {**process.get("capabilities", {})}
        for name in ("bounding", "effective", "permitted"):
            sets[name] = [*sets.get(name, []), *given.values("cap")]
        wanted["capabilities"] = sets
    user: dict[str, Any] = {**process.get("user", {})}
    if given.has("user"):
        user["uid"], user["gid"] = _ids(given.text("user"), user.get("gid", 0))
    if given.has("additional-gids"):
        user["additionalGids"] = [_number(text) for text in given.values("additional-gids")]
    wanted["user"] = user
    return {"process": wanted}


def resources(given: Arguments) -> Resources:
    """Return the limits ``update`` was given: flags, or a document (``-r``; ``-`` is stdin)."""
    if given.has("resources"):
        path = given.text("resources")
        text = sys.stdin.read() if path == "-" else _read(path)
        try:
            document: Resources = json_text.decode(text)
        except ValueError as error:
            raise InvalidArgumentError(f"invalid resources: {error}") from error
        return document
    wanted: dict[str, dict[str, Any]] = {}
    for flag, (part, member) in LIMITS.items():
        value = given.text(flag) if flag in _TEXT_LIMITS else given.number(flag)
        if value not in ("", None):
            wanted.setdefault(part, {})[member] = value
    return wanted  # type: ignore[return-value]


def table(documents: Sequence[dict[str, Any]]) -> str:
    """Return the table of ``list``."""
    names = ("id", "pid", "status", "bundle", "created")
    rows = [(*(str(one[name]) for name in names), "root") for one in documents]
    return _columns([("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"), *rows])


def processes(pids: Iterable[int]) -> str:
    """Return the table of ``ps``: who, which, since when, what."""
    rows = [("UID", "PID", "PPID", "STIME", "CMD")]
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for pid in pids:
        try:
            rows.append(_process_row(pid, boot))
        except (OSError, InvalidArgumentError):
            continue  # ended meanwhile
    return _columns(rows)


def example_config() -> dict[str, Any]:
    """Return the document ``spec`` writes: a shell in a read-only root."""
    allowed = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    limited = ["nosuid", "noexec", "nodev"]
    mounts = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            *("/dev/pts", "devpts", "devpts"),
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", "shm", [*limited, "mode=1777", "size=65536k"]),  # noqa: S108
        ("/dev/mqueue", "mqueue", "mqueue", limited),
        ("/sys", "sysfs", "sysfs", [*limited, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*limited, "relatime", "ro"]),
    ]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), allowed),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "cais",
        "mounts": [
            {"destination": place, "type": kind, "source": source, "options": options}
            for place, kind, source, options in mounts
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "maskedPaths": [
                *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/scsi"),
                *("/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats"),
                *("/proc/sched_debug", "/proc/interrupts", "/sys/firmware"),
                "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": [
                *("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
            ],
        },
    }


def features() -> dict[str, Any]:
    """Return what this runtime supports (runtime-spec features.md)."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": [],
        "mountOptions": known_options(),
        "linux": {
            "namespaces": sorted(set(namespaces.KINDS) - {"time"}),
            "capabilities": list(credentials.BITS),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False},
            "seccomp": {"enabled": os.path.exists("/proc/sys/kernel/seccomp/actions_avail")},
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
    }


def _ids(text: str, gid: int) -> tuple[int, int]:
    user, colon, group = text.partition(":")
    return _number(user), _number(group) if colon else gid


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > credentials.MAX_ID:
        raise InvalidArgumentError(f"invalid id {text!r}")
    return int(text)


def _process_row(pid: int, boot: float) -> tuple[str, str, str, str, str]:
    stat = _read(f"/proc/{pid}/stat")
    fields = stat[stat.rindex(")") + 2 :].split()
    started = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    name = stat[stat.index("(") : stat.rindex(")") + 1]
    uid = os.stat(f"/proc/{pid}").st_uid
    when = time.strftime("%H:%M", time.localtime(started))
    return str(uid), str(pid), fields[1], when, command or name


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        raise InvalidArgumentError(f"no such file: {path}") from None
