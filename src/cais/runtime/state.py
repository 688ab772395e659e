"""What ``cais-runtime`` remembers of a container between two commands.

    <root>/<id>/state.json   {"id", "pid", "start_ticks", "bundle", "created", "owner"}
    <root>/<id>/config.json  the documents it was created from: what happens to the bundle later
    <root>/<id>/cais.json    does not change the container (runtime.md "Operations", create)
    <root>/<id>/start        a FIFO, while the container is created and not yet started
    <root>/<id>/verdict      a FIFO, with hooks that follow (``verbs.hooking``)
    <root>/<id>/exec-*.json  the document of an exec that is being started

The directory is made with O_EXCL semantics: who makes it owns the name.
"""

from __future__ import annotations

import os
import time

from cais.errors import (
    AlreadyExistsError,
    DataLossError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from cais.linux import process
from cais.runtime import control
from cais.runtime.bundles import load_config
from cais.spec import json_text, strict_json
from cais.spec.runtime import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from cais.linux.cgroups import Cgroup
    from cais.spec.runtime import Config

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_NAME_LIMIT = 1024  # runc's; the file system has a smaller one
_DOCUMENTS = ("config.json", "cais.json")
START_FIFO = "start"
_FACTS = {"id": str, "pid": int, "start_ticks": int, "bundle": str, "created": str}


class Record:
    """One container's state; ``directory`` also has its documents, in the place of the bundle."""

    __slots__ = ("bundle", "created", "directory", "id", "pid", "start_ticks")

    def __init__(self, directory: str, facts: dict[str, Any]) -> None:
        self.directory = directory
        self.id: str = facts["id"]
        self.pid: int = facts["pid"]
        self.start_ticks: int = facts["start_ticks"]
        self.bundle: str = facts["bundle"]
        self.created: str = facts["created"]

    @property
    def fifo(self) -> str:
        """Where ``start`` writes."""
        return f"{self.directory}/{START_FIFO}"

    def status(self) -> str:
        """Return ``created``, ``running``, ``paused`` or ``stopped``."""
        if not self.is_alive():
            return "stopped"
        group = self.group()
        if group.exists() and group.is_frozen():
            return "paused"
        return "created" if os.path.exists(self.fifo) else "running"

    def group(self) -> Cgroup:
        """Return the container's control group; it need not exist any more."""
        return control.cgroup_of(self.id, self.directory)

    def pids(self) -> list[int]:
        """Return the processes of the group, none when it is gone.

        Raises:
            UnsupportedError: the container runs without a group: nobody knows them all.

        """
        group = self.group()
        if not group.path and self.is_alive():
            raise UnsupportedError(f"rootless container {self.id} has no control group")
        return group.pids() if group.exists() else []

    def config(self) -> Config:
        """Return the document the container was created from."""
        return load_config(self.directory)

    def is_alive(self) -> bool:
        """Say whether the first process is there and no zombie."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                stat = file.read()
            if process.start_ticks(self.pid) != self.start_ticks:
                return False
        except OSError:
            return False
        return stat[stat.rindex(b")") + 2 :][:1] not in (b"Z", b"X")

    def document(self) -> dict[str, Any]:
        """Return the state as the specification words it."""
        status = self.status()
        config = self.config()
        document: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": os.path.join(self.bundle, config["root"]["path"]),
            "created": self.created,
            "owner": "",
        }
        if config.get("annotations"):
            document["annotations"] = config["annotations"]
        return document

    def remove(self) -> None:
        """Forget the container."""
        discard(self.directory)


def discard(directory: str) -> None:
    """Delete a container's directory; idempotent."""
    try:  # it is flat, and shutil costs 5 ms of start-up
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        return


def reserve(root: str, container_id: str) -> str:
    """Make the directory of a new container and return it.

    Raises:
        AlreadyExistsError: the id is taken.
        InvalidArgumentError: not an id.

    """
    _check_name(container_id)
    os.makedirs(root, 0o700, exist_ok=True)
    directory = f"{root}/{container_id}"
    try:
        os.mkdir(directory, 0o711)
    except FileExistsError:
        raise AlreadyExistsError("container with given ID already exists") from None
    return directory


def keep_documents(directory: str, bundle: str) -> None:
    """Copy the documents of a bundle to a container's directory.

    Raises:
        NotFoundError: no ``config.json``.

    """
    for name in _DOCUMENTS:
        try:
            with open(f"{bundle}/{name}", "rb") as source:
                content = source.read()
        except FileNotFoundError:
            continue
        with open(f"{directory}/{name}", "xb", opener=_open_private) as copy:
            copy.write(content)


def save(directory: str, container_id: str, bundle: str, pid: int, start_ticks: int) -> Record:
    """Write the state of a container that has been created; whole or not at all.

    Args:
        directory: of ``reserve``.
        container_id: its id.
        bundle: where its root is.
        pid: of its first process.
        start_ticks: when that began, so that no other process is taken for it.

    """
    facts = {
        "id": container_id,
        "pid": pid,
        "start_ticks": start_ticks,
        "bundle": bundle,
        "created": _now(),
        "owner": os.getuid(),
    }
    with open(f"{directory}/state.json.new", "w", opener=_open_private) as file:
        file.write(json_text.encode(facts))
    os.rename(f"{directory}/state.json.new", f"{directory}/state.json")
    return Record(directory, facts)


def load(root: str, container_id: str) -> Record:
    """Read the state of a container.

    Raises:
        NotFoundError: no such container.
        DataLossError: its state is damaged, or another runtime's.

    """
    _check_name(container_id)
    directory = f"{root}/{container_id}"
    path = f"{directory}/state.json"
    try:
        with open(path, "rb") as file:
            facts = strict_json.loads(file.read())
    except FileNotFoundError:
        raise NotFoundError("container does not exist") from None
    except strict_json.InvalidJsonError as error:
        raise DataLossError(f"{path}: {error}") from None
    if not isinstance(facts, dict):
        raise DataLossError(f"{path}: the state is not an object")
    for name, kind in _FACTS.items():
        if type(facts.get(name)) is not kind:
            raise DataLossError(f"{path}: not a state of this runtime: {name} is missing or wrong")
    return Record(directory, facts)


def load_all(root: str, warn: Callable[[str], None]) -> Iterator[Record]:
    """Yield every container of a root, by id.

    Args:
        root: directory of the containers' directories.
        warn: told of each whose state cannot be read; the others are yielded nevertheless.

    """
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield load(root, name)
        except (NotFoundError, InvalidArgumentError):
            continue  # being created or deleted, or somebody else's
        except DataLossError as error:
            warn(f"load container {name}: {error}")


def _check_name(container_id: str) -> None:
    if not container_id:
        raise InvalidArgumentError("container id cannot be empty")
    if set(container_id) - _NAME or container_id in (".", "..") or len(container_id) > _NAME_LIMIT:
        raise InvalidArgumentError("invalid container ID format")


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{nanoseconds:09}".rstrip("0").rstrip(".") + "Z"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
