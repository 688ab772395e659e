"""``checkpoint`` and ``restore``: a container's processes to files, and back; CRIU does it."""

from __future__ import annotations

import os

from cais.errors import ConflictError, InvalidArgumentError
from cais.runtime import control, state
from cais.runtime.arguments import NUMBER, SWITCH, TEXT
from cais.runtime.bundles import load_config
from cais.runtime.launch import Running
from cais.runtime.verbs import hooking
from cais.runtime.verbs.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context

_SHARED_FLAGS: tuple[Flag, ...] = (
    ("image-path", TEXT, "directory of the image files (default: checkpoint)"),
    ("work-path", TEXT, "directory of CRIU's own files and logs"),
    ("tcp-established", SWITCH, "allow open TCP connections"),
    ("ext-unix-sk", SWITCH, "allow unix sockets that lead outside"),
    ("shell-job", SWITCH, "allow processes of the caller's terminal session"),
    ("lazy-pages", SWITCH, "let memory follow when it is touched (userfaultfd)"),
    ("file-locks", SWITCH, "handle file locks"),
    ("manage-cgroups-mode", TEXT, "soft (default), full, strict or ignore"),
    ("empty-ns", TEXT, "namespace whose content is left out: network"),
    ("auto-dedup", SWITCH, "leave out of the previous images what the new ones have"),
)
_CHECKPOINT_FLAGS: tuple[Flag, ...] = (
    *_SHARED_FLAGS,
    ("parent-path", TEXT, "images of an earlier --pre-dump, relative to --image-path"),
    ("leave-running", SWITCH, "let the container go on"),
    ("pre-dump", SWITCH, "write memory only and let the container go on"),
    ("page-server", TEXT, "ADDRESS:PORT of a page server that takes the memory"),
    ("keep", SWITCH, "do not delete the container, which has stopped then"),
    ("status-fd", NUMBER, "descriptor CRIU writes a zero byte to once lazy pages are ready"),
)
_RESTORE_FLAGS: tuple[Flag, ...] = (
    *_SHARED_FLAGS,
    ("bundle,b", TEXT, "directory of the bundle (default: the current directory)"),
    ("console-socket", TEXT, "refused: a terminal cannot be restored"),
    ("pid-file", TEXT, "file to write the process id to"),
    ("detach,d", SWITCH, "do not wait for the process to end"),
    ("no-subreaper", SWITCH, "leave orphaned processes to the caller's init"),
    ("no-pivot", SWITCH, "enter the root without pivot_root"),
    ("lsm-profile", TEXT, "security profile of the restored processes, TYPE:NAME"),
    ("lsm-mount-context", TEXT, "security context of the restored mounts"),
)


def _checkpoint(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    status = record.status()
    if status in ("created", "stopped"):
        raise ConflictError(f"Container cannot be checkpointed in {status} state")
    # Only here: it runs a program.
    from cais.runtime import checkpoint

    checkpoint.dump(context.criu, record, given)
    if not any(given.has(name) for name in ("leave-running", "pre-dump", "keep")):
        control.destroy(record.id, record.directory)
        hooking.end(record.id, record.directory, record.bundle, context.log)
        record.remove()
    return 0


def _restore(given: Arguments, context: Context) -> int:
    bundle = _bundle(given)
    # Only here: it runs a program.
    from cais.runtime import checkpoint, foreground

    front = None
    if not given.has("detach"):
        front = foreground.Front(adopts=not given.has("no-subreaper"))
    checkpoint.check(load_config(bundle), bundle)
    directory = state.reserve(context.root, given.rest[0])
    try:
        state.keep_documents(directory, bundle)
        pid = checkpoint.restore(context.criu, (given.rest[0], directory, bundle), given)
        record = _save(given, directory, bundle, pid)
    except BaseException:
        control.destroy(given.rest[0], directory)
        state.discard(directory)
        raise
    if front is None:
        return 0
    running = Running(record.pid, os.pidfd_open(pid), record.start_ticks, None, [])
    code = front.stay(running)
    control.destroy(record.id, directory)
    hooking.end(record.id, directory, bundle, context.log)
    record.remove()
    return code


def _bundle(given: Arguments) -> str:
    bundle = os.path.abspath(given.text("bundle", "."))
    if not os.path.exists(f"{bundle}/config.json"):
        raise InvalidArgumentError("JSON specification file config.json not found")
    return bundle


def _save(given: Arguments, directory: str, bundle: str, pid: int) -> Record:
    from cais.linux.process import start_ticks
    from cais.runtime.verbs import handing

    if given.has("pid-file"):
        handing.write_pid_file(given.text("pid-file"), pid)
    return state.save(directory, given.rest[0], bundle, pid, start_ticks(pid))


CHECKPOINT = Verb(
    "checkpoint", "save a running container to files", _checkpoint, flags=_CHECKPOINT_FLAGS
)
RESTORE = Verb("restore", "make a container of a checkpoint", _restore, flags=_RESTORE_FLAGS)
