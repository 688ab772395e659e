"""What a container sees below "/": its root with what is mounted on it, as one descriptor.

A running container's view is that of its first process. One that does not run gets a process of
its own (``runtime.root_holder``) that has its root and its volumes mounted; it must not be started
meanwhile. Either way the descriptor is good for openat2 with RESOLVE_IN_ROOT and for nothing else.
Owners are shown as they are on the host, also of a container that has a user namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.engine.errors import NotRunningError
from cais.engine.oci.mounts import point_mount
from cais.errors import InternalError
from cais.linux import memfd
from cais.linux.process import start_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.engine.core import Core
    from cais.engine.records import ContainerRecord

_ENDING_S = 60.0
_CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from cais.runtime.root_holder import main; main()"
)


@contextlib.contextmanager
def open_running_root(record: ContainerRecord) -> Iterator[int]:
    """Give the root of a running container's first process.

    Raises:
        NotRunningError: it has ended, also when that happens before the block does.

    """
    state = record.state
    pid, ticks = state.pid, state.start_ticks
    try:
        fd = _open_directory(f"/proc/{pid}/root")
    except OSError as exc:
        raise NotRunningError(record.id) from exc
    try:
        _check_process(record, pid, ticks)  # that number may be another process by now
        yield fd
        _check_process(record, pid, ticks)  # mounts go with the last process: not all was seen
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_stopped_root(core: Core, record: ContainerRecord) -> Iterator[int]:
    """Give the root of a container that does not run; its lock is held meanwhile.

    Raises:
        InternalError: it cannot be mounted; the text says why.

    Blocks: until a process has started, a tenth of a second.

    """
    document = _document(core, record)
    root = Path(__file__).absolute().parents[2]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CODE, root],
        env=memfd.library_environment(),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as holder:
        try:
            fd = _wait_for_root(holder, document)
            try:
                yield fd
            finally:
                os.close(fd)
        finally:
            _end(holder)


def _document(core: Core, record: ContainerRecord) -> dict[str, Any]:
    points = sorted(record.mounts, key=lambda point: point.destination.rstrip("/").count("/"))
    mounts = core.snapshots.mounts(record.id)
    identities = record.identities
    mapped = () if identities is None else ("idmap",)
    return {
        "rootfs": [
            {
                "type": m.type,
                "source": m.source,
                "target": m.target,
                "options": [*m.options, *mapped],
            }
            for m in mounts
        ],
        "mounts": [point_mount(point) for point in points if point.type != "tmpfs"],
        "read_only": record.host_config.readonly_rootfs,
        "maps": None if identities is None else identities.document(),
    }


def _wait_for_root(holder: subprocess.Popen[bytes], document: dict[str, Any]) -> int:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(json.dumps(document).encode() + b"\n")
    holder.stdin.flush()
    said = holder.stdout.readline()
    if said != b"\n":
        text = said.decode(errors="replace").strip() or "the process that mounts it has ended"
        raise InternalError(f"cannot look into the container's root: {text}")
    return _open_directory(f"/proc/{holder.pid}/root")


def _end(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        holder.stdin.close()
    try:
        holder.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        holder.kill()


def _open_directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _check_process(record: ContainerRecord, pid: int, ticks: int) -> None:
    try:
        is_same = start_ticks(pid) == ticks
    except OSError:
        is_same = False
    if not is_same:
        raise NotRunningError(record.id)
