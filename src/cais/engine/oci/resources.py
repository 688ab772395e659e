"""Docker's limits as OCI resources.

Only what was asked for is written: a zero that Docker sends along with every request would make
the runtime demand controllers the host may not have.

Spec: OCI runtime-spec 1.2, config-linux.md "Control groups".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.spec.container import Resources, ThrottleDevice, Ulimit

PERIOD_US = 100_000
Document = dict[str, Any]


def resources_document(resources: Resources) -> Document:
    """Return ``linux.resources`` without devices.

    Raises:
        InvalidArgumentError: a block device that is not there.

    """
    parts: Document = {
        "memory": _memory(resources),
        "cpu": _cpu(resources),
        "pids": _pids(resources.pids_limit),
        "blockIO": _block_io(resources),
    }
    return {name: part for name, part in parts.items() if part}


def rlimits(ulimits: Sequence[Ulimit] | None) -> list[Document]:
    """Return ``process.rlimits``; -1 is no limit, and the last of one name counts."""
    return [
        {
            "type": f"RLIMIT_{limit.name.upper()}",
            "soft": limit.soft % 2**64,
            "hard": limit.hard % 2**64,
        }
        for limit in {one.name: one for one in ulimits or ()}.values()
    ]


def _memory(resources: Resources) -> Document:
    found: Document = {}
    if resources.memory > 0:
        found["limit"] = resources.memory
    if resources.memory_reservation > 0:
        found["reservation"] = resources.memory_reservation
    if resources.memory_swap:
        found["swap"] = resources.memory_swap
    if resources.memory_swappiness is not None:
        found["swappiness"] = resources.memory_swappiness
    if resources.oom_kill_disable:
        found["disableOOMKiller"] = True
    return found


def _cpu(resources: Resources) -> Document:
    found: Document = {}
    if resources.nano_cpus > 0:
        found["period"] = PERIOD_US
        found["quota"] = resources.nano_cpus * PERIOD_US // 10**9
    numbers = {
        "shares": resources.cpu_shares,
        "period": resources.cpu_period,
        "quota": resources.cpu_quota,
        "realtimePeriod": resources.cpu_realtime_period,
        "realtimeRuntime": resources.cpu_realtime_runtime,
    }
    found |= {name: value for name, value in numbers.items() if value}
    texts = {"cpus": resources.cpuset_cpus, "mems": resources.cpuset_mems}
    return found | {name: text for name, text in texts.items() if text}


def _pids(limit: int | None) -> Document:
    """Return nothing for None; the API's 0 and below take a limit away, which OCI writes -1."""
    if limit is None:
        return {}
    return {"limit": limit if limit > 0 else -1}


def _block_io(resources: Resources) -> Document:
    found: Document = {}
    if resources.blkio_weight:
        found["weight"] = resources.blkio_weight
    if resources.blkio_weight_device:
        found["weightDevice"] = [
            {**_block_device(device.path), "weight": device.weight}
            for device in resources.blkio_weight_device
        ]
    throttles = {
        "throttleReadBpsDevice": resources.blkio_device_read_bps,
        "throttleWriteBpsDevice": resources.blkio_device_write_bps,
        "throttleReadIOPSDevice": resources.blkio_device_read_iops,
        "throttleWriteIOPSDevice": resources.blkio_device_write_iops,
    }
    return found | {name: _throttle(devices) for name, devices in throttles.items() if devices}


def _throttle(devices: Sequence[ThrottleDevice]) -> list[Document]:
    return [{**_block_device(device.path), "rate": device.rate} for device in devices]


def _block_device(path: str) -> Document:
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "embedded null byte"
        raise InvalidArgumentError(f"stat {path[:256]}: {str(why).lower()}") from exc
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidArgumentError(f"{path[:256]}: not a block device")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
