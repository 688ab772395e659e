"""OCI bundles of busybox, and containers run from them in the calling process, for kernel tests."""

from __future__ import annotations

import copy
import json
import os
import select
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cais.runtime import container as runtime
from cais.runtime.launch import Stdio
from cais.testing.isolation import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.runtime.launch import Launch, Running

BUSYBOX = Path("/bin/busybox")
DOCKER_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
]
_MOUNTS = (
    ("/proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
    ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
)
MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "args": ["true"],
        "cwd": "/",
        "env": ["PATH=/bin:/sbin"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "capabilities": dict.fromkeys(("bounding", "permitted", "effective"), DOCKER_CAPABILITIES),
    },
    "root": {"path": "rootfs"},
    "hostname": "box",
    "mounts": [
        {"destination": place, "type": kind, "source": kind, "options": options.split(",")}
        for place, kind, options in _MOUNTS
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "uts", "ipc")],
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    },
}


class Result:
    """How a process ended and what it wrote."""

    def __init__(self, code: int, stdout: str, stderr: str, warnings: Sequence[str]) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr
        self.warnings = list(warnings)
        self.oom_killed = False


class Bundle:
    """A bundle with a root of busybox; change ``config``, ``extras`` and ``rootfs``, then run."""

    def __init__(self, directory: Path, container_id: str = "test") -> None:
        self.path = directory
        self.id = f"{container_id}-{os.getpid()}"
        self.rootfs = directory / "rootfs"
        self.config = copy.deepcopy(_CONFIG)
        self.extras: dict[str, Any] = {}
        if "GLIBC_TUNABLES" in os.environ:  # the guest of tests/vm cannot do without
            self.process["env"].append(f"GLIBC_TUNABLES={os.environ['GLIBC_TUNABLES']}")
        make_rootfs(self.rootfs)

    @property
    def process(self) -> dict[str, Any]:
        """The process of the document."""
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        """The Linux part of the document."""
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def save(self) -> None:
        """Write the documents."""
        (self.path / "config.json").write_text(json.dumps(self.config))
        if self.extras:
            (self.path / "cais.json").write_text(json.dumps(self.extras))

    def join(self, kind: str, path: str) -> None:
        """Have the container's namespace of this kind be the one at ``path``, not a new one."""
        others = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        self.linux["namespaces"] = [*others, {"type": kind, "path": path}]

    def start(self, *args: str, stdio: Stdio | None, **options: Any) -> Running:  # noqa: ANN401
        """Start the container and wait until its program runs."""
        if args:
            self.process["args"] = list(args)
        self.save()
        return wait(runtime.begin(self.id, str(self.path), stdio=stdio, **options))

    def run(self, *args: str, **options: Any) -> Result:  # noqa: ANN401
        """Run the container to its end and destroy it, also when it does not start."""
        with Capture() as capture:
            try:
                running = self.start(*args, stdio=capture.stdio, **options)
                code = end(running)
            finally:
                oom_killed = self.destroy()
            result = capture.result(code, running.warnings)
            result.oom_killed = oom_killed
            return result

    def shell(self, script: str, **options: Any) -> Result:  # noqa: ANN401
        """Run a shell script to its end."""
        return self.run("sh", "-c", script, **options)

    def execute(self, init: Running, *args: str, **extras: Any) -> Result:  # noqa: ANN401
        """Run a process in the running container; ``process=`` changes its document."""
        with Capture() as capture:
            running = self.start_exec(init, *args, stdio=capture.stdio, **extras)
            return capture.result(end(running), running.warnings)

    def start_exec(
        self,
        init: Running,
        *args: str,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
        **extras: Any,  # noqa: ANN401
    ) -> Running:
        """Start a process in the running container."""
        changes = extras.pop("process", {})
        process = {**self.process, "args": list(args), "terminal": stdio is None, **changes}
        document = self.path / "exec-1.json"
        document.write_text(json.dumps({"process": process, **extras}))
        return wait(
            runtime.begin_exec(
                self.id, str(self.path), str(document), init.pidfd, stdio=stdio, size=size
            )
        )

    def destroy(self) -> bool:
        """Remove the container's cgroup."""
        return runtime.destroy(self.id, str(self.path))


class Capture:
    """Standard streams of a process: nothing to read, files in memory to write."""

    def __enter__(self) -> Self:
        self._fds = [
            os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
            os.memfd_create("stdout", os.MFD_CLOEXEC),
            os.memfd_create("stderr", os.MFD_CLOEXEC),
        ]
        self.stdio = Stdio(*self._fds)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)

    def result(self, code: int, warnings: Sequence[str] = ()) -> Result:
        """Return what was written."""
        texts = [os.pread(fd, 1 << 24, 0).decode(errors="replace") for fd in self._fds[1:]]
        return Result(code, texts[0], texts[1], warnings)


def wait(launch: Launch, timeout_s: float = 60) -> Running:
    """Wait until the program runs."""
    while (running := launch.advance()) is None:
        if not select.select([launch], [], [], timeout_s * PATIENCE)[0]:
            launch.abort()
            raise TimeoutError("the child made no progress")
    return running


def end(running: Running) -> int:
    """Wait for a process to end, close what ``Running`` owns and return its exit code."""
    status = os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)
    assert status is not None
    os.close(running.pidfd)
    if running.terminal_fd is not None:
        os.close(running.terminal_fd)
    return status.si_status if status.si_code == os.CLD_EXITED else 128 + status.si_status


def read_terminal(fd: int) -> str:
    """Read a terminal until its last user is gone."""
    data = b""
    while True:
        try:
            data += os.read(fd, 4096)
        except OSError:
            return data.decode(errors="replace")


def make_rootfs(path: Path) -> None:
    """Make a root with busybox, its applets and small passwd and group files."""
    (path / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, path / "bin/busybox")
    for applet in _applets():
        (path / "bin" / applet).symlink_to("busybox")
    (path / "etc").mkdir()
    (path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
    )
    (path / "etc/group").write_text("root:x:0:\nwheel:x:10:root,nobody\nnobody:x:65534:\n")


@cache
def _applets() -> tuple[str, ...]:
    listing = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    return tuple(name for name in listing.stdout.split() if name != "busybox")
