"""What happens in a copy of the shim before it becomes a foreign runtime's command.

A runtime is handed a plain bundle: a root it can find, copies of the engine's files that a
container may write to, and a user in numbers. All of it is mounted in a mount namespace that only
this command (and what it makes of it) sees, so that the host's mount table never shows it; users
are looked up in the image's own files, below the root, before any file of the image can be
executed. Nothing is imported here: the interpreter's search paths are emptied first (see
``cais.runtime.child``).

Spec: docs/architecture.md 3.2; OCI runtime-spec 1.2; openat2(2) RESOLVE_IN_ROOT.
"""

from __future__ import annotations

import json
import os

from cais.linux import mount, process
from cais.linux.durable import replace_file
from cais.runtime import apart, bundles, child, placement, root_layers, settle, small_files
from cais.runtime.mounts import parse_mount, parse_root_mount
from cais.runtime.process_plan import ProcessPlan
from cais.runtime.root_plan import RootPlan
from cais.spec.runtime import validate_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from cais.linux.process import Program
    from cais.runtime.channel import Channel
    from cais.runtime.mounts import MountPlan

    Document = dict[str, Any]

ROOT_NAME = "rootfs"
_FILES_NAME = "files"
_ORDINARY_OOM_SCORE = 0  # the shim's own protects it, and must not reach what a container runs


class Bundle:
    """A container's documents, read and checked before the copy is made."""

    def __init__(self, path: str) -> None:
        """Read them.

        Raises:
            CaisError: as the runtime's own reading of a bundle.

        """
        self.path = path
        self.config: Document = bundles.load_config(path)  # type: ignore[assignment]
        extras = bundles.load_extras(path)
        self._process = ProcessPlan(self.config["process"])
        self._process.apply_extras(extras)
        self._root = RootPlan(path)
        self._root.layers = [parse_root_mount(entry) for entry in extras.get("rootfs") or ()]
        os.makedirs(os.path.join(path, ROOT_NAME), 0o755, exist_ok=True)
        self._copies = _small_files(self.config, extras.get("files") or [], path)
        if self._copies:
            os.makedirs(os.path.join(path, _FILES_NAME), 0o700, exist_ok=True)

    def complete(self) -> None:
        """Mount the root and put the user's numbers into ``config.json``. In the child only."""
        target = os.path.join(self.path, self.config.get("root", {}).get("path", ROOT_NAME))
        apart.keep_mounts_here(self.path)
        if self._copies:
            self._bind_copies(os.path.join(self.path, _FILES_NAME))
        if self._root.layers:
            root_layers.open_layers(self._root)
            mount.place_at(self._root.layers[0].tree_fd, target)
        root_fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for layer in self._root.layers[1:]:
            placement.place(layer, root_fd)
        _resolve(self.config["process"], self._process, root_fd)
        _write(os.path.join(self.path, "config.json"), self.config)

    def _bind_copies(self, place: str) -> None:
        """Have the runtime bind copies of bounded size, as our own has (``small_files``)."""
        os.close(small_files.make_copies(list(self._copies.values()), place))
        for entry in self.config["mounts"]:
            if entry["destination"] in self._copies:
                entry["source"] = f"{place}/{os.path.basename(entry['destination'])}"


class ExecDocument:
    """An exec's process document, read and checked before the copy is made."""

    def __init__(self, path: str, init_pid: int) -> None:
        """Read ``path``. CaisError: as the runtime's own reading."""
        extras = bundles.load_exec(path)
        self._document: Document = extras["process"]
        self._plan = ProcessPlan(validate_process(self._document))
        self._plan.apply_extras(extras)
        self._init_pid = init_pid
        self.path = ""
        """Where ``complete`` writes it; set before the copy is made."""

    def complete(self) -> None:
        """Put the user's numbers into the document. In the child only."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        root_fd = os.open(f"/proc/{self._init_pid}/root", flags)
        _resolve(self._document, self._plan, root_fd)
        _write(self.path, self._document)


def run(
    line: Channel,
    program: tuple[bytes, Program],
    streams: Sequence[int],
    ignored: Sequence[int],
    complete: Callable[[], None] | None,
) -> NoReturn:
    """Become the command; what fails before is said over ``line``."""
    try:
        child.isolate([line.fileno(), *streams])
        settle.reset_signals(ignored)
        settle.adjust_oom_score(_ORDINARY_OOM_SCORE)
        os.setsid()
        os.umask(0o022)
        if complete is not None:
            complete()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        process.close_all_but([0, 1, 2, line.fileno()])
        path, arguments = program
        arguments.execute(path)
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's frames
        child.report(line, error)
    os._exit(1)


def _small_files(config: Document, destinations: Any, bundle: str) -> dict[str, MountPlan]:  # noqa: ANN401 - a document's
    mounts = [entry for entry in config.get("mounts", ()) if entry["destination"] in destinations]
    plans = [parse_mount(entry, bundle) for entry in mounts]
    small_files.load(plans, destinations)
    return {entry["destination"]: plan for entry, plan in zip(mounts, plans, strict=True)}


def _resolve(document: Document, wanted: ProcessPlan, root_fd: int) -> None:
    """Write numbers for the user, his groups and his home into a process document."""
    identity = settle.resolve_identity(wanted, root_fd)
    document["user"] = {
        **document.get("user", {}),
        "uid": identity.uid,
        "gid": identity.gid,
        "additionalGids": list(identity.groups),
    }
    document["env"] = [os.fsdecode(item) for item in wanted.env]


def _write(path: str, document: Document) -> None:
    """Replace a document as a whole: who reads it meanwhile sees the old one or the new one."""
    replace_file(path, json.dumps(document).encode(), mode=0o600)
