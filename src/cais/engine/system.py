"""What the daemon says about itself and its host.

Spec: docker-engine-api v1.51, SystemVersion and SystemInfo.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.engine.clock import rfc3339
from cais.spec.platform import host_platform
from cais.spec.version import VERSION

if TYPE_CHECKING:
    from cais.engine.core import Core
    from cais.engine.oci import Host

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
_BUILD_TIME = "1970-01-01T00:00:00.000000000+00:00"

_FIXED: dict[str, Any] = {
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "null"],
        "Authorization": None,
        "Log": ["json-file"],
    },
    "BridgeNfIptables": False,
    "BridgeNfIp6tables": False,
    "LoggingDriver": "json-file",
    "InitBinary": "cais-init",
    "LiveRestoreEnabled": True,
    "Isolation": "",
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "ContainerdCommit": {"ID": ""},
    "RuncCommit": {"ID": ""},
    "InitCommit": {"ID": ""},
    "GenericResources": None,
    "Warnings": None,
}
"""Of ``/info``: the same on every host."""


class System:
    """``/version`` and ``/info``."""

    def __init__(self, core: Core, host: Host, daemon_id: str) -> None:
        self._core = core
        self._host = host
        self._daemon_id = daemon_id

    def version(self) -> dict[str, Any]:
        """Return the document of ``GET /version``. Not a coroutine."""
        release = os.uname().release
        architecture = host_platform().architecture
        details = {
            "ApiVersion": API_VERSION,
            "Arch": architecture,
            "BuildTime": _BUILD_TIME,
            "Experimental": "true" if self._core.config.experimental else "false",
            "GitCommit": "",
            "KernelVersion": release,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        return {
            "Platform": {"Name": f"Cais {VERSION}"},
            "Components": [
                {"Name": "Engine", "Version": VERSION, "Details": details},
                {"Name": "python", "Version": platform.python_version(), "Details": {}},
                {"Name": "sqlite", "Version": sqlite3.sqlite_version, "Details": {}},
            ],
            "Version": VERSION,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": release,
            "BuildTime": _BUILD_TIME,
        }

    def ping(self) -> dict[str, str]:
        """Return the headers of ``/_ping`` beside the API's own: OSType, Swarm, ... ."""
        return {"OSType": "linux", "Swarm": "inactive", "Builder-Version": "1"}

    async def info(self) -> dict[str, Any]:
        """Return the document of ``GET /info``."""
        images = len(await self._core.threads.run(self._core.images.list))
        facts = await self._core.threads.run(self._host_facts)
        return {**self._counts(images), **self._features(), **facts, **self._identity()}

    def _counts(self, images: int) -> dict[str, Any]:
        states = [container.record.state.status for container in self._core.table]
        return {
            "Containers": len(states),
            "ContainersRunning": states.count("running") + states.count("restarting"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": sum(one in ("created", "exited", "dead") for one in states),
            "Images": images,
            "NEventsListener": self._core.events.listeners,
        }

    def _features(self) -> dict[str, Any]:
        return {
            **_FIXED,
            "Driver": self._core.snapshots.driver,
            "DriverStatus": [list(line) for line in self._core.snapshots.status()] or None,
            "CgroupDriver": self._core.config.cgroup_driver,
            "CgroupVersion": str(self._host.hierarchy.version),
            "SecurityOptions": self._security_options(),
            **self._limits(),
            "IPv4Forwarding": _flag("/proc/sys/net/ipv4/ip_forward"),
            "DefaultRuntime": self._core.runtimes.default,
            "Runtimes": self._core.runtimes.describe(),
            "ExperimentalBuild": self._core.config.experimental,
            "Debug": self._core.config.debug,
        }

    def _security_options(self) -> list[str]:
        has = {
            "name=apparmor": self._host.apparmor,
            "name=seccomp,profile=builtin": self._host.seccomp,
            "name=userns": self._core.config.identities is not None,
        }
        return [name for name, is_there in has.items() if is_there]

    def _limits(self) -> dict[str, bool]:
        features = self._host.features
        return {
            "MemoryLimit": features.memory_limit,
            "SwapLimit": features.swap_limit,
            "CpuCfsPeriod": features.cpu_cfs_period,
            "CpuCfsQuota": features.cpu_cfs_quota,
            "CPUShares": features.cpu_shares,
            "CPUSet": features.cpuset,
            "PidsLimit": features.pids_limit,
            "OomKillDisable": features.oom_kill_disable,
        }

    def _host_facts(self) -> dict[str, Any]:
        """Blocks: reads /proc and /etc."""
        uname = os.uname()
        release = _os_release()
        return {
            "SystemTime": rfc3339(self._core.clock.wall_ns()),
            "KernelVersion": uname.release,
            "Architecture": uname.machine,
            "OSType": "linux",
            "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""),
            "NCPU": self._host.cpus,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - only counted
            "NGoroutines": 0,
        }

    def _identity(self) -> dict[str, Any]:
        config = self._core.config
        return {
            "ID": self._daemon_id,
            "Name": config.name or os.uname().nodename,
            "DockerRootDir": str(config.data_root),
            "ServerVersion": VERSION,
            "IndexServerAddress": "https://index.docker.io/v1/",
            **config.registries.described(),
            "Labels": list(config.labels),
            "ProductLicense": "",
        }


def _flag(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
