"""``create``, ``run`` and ``start``: from a bundle to a container that is created or runs."""

from __future__ import annotations

import os

from cais.errors import ConflictError, InvalidArgumentError, NotFoundError
from cais.runtime import control, starter, state
from cais.runtime.arguments import SWITCH, TEXT
from cais.runtime.bundles import load_config
from cais.runtime.habits import Habits
from cais.runtime.launch import Stdio
from cais.runtime.verbs import handing, hooking
from cais.runtime.verbs.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.launch import Launch, Running
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context
    from cais.spec.runtime import Config

_CREATE_FLAGS: tuple[Flag, ...] = (
    ("bundle,b", TEXT, "directory of the bundle (default: the current directory)"),
    *handing.FLAGS,
    ("no-pivot", SWITCH, "enter the root without pivot_root, for a root on an initramfs"),
    ("no-new-keyring", SWITCH, "leave the caller's session keyring to the container"),
)
_RUN_FLAGS: tuple[Flag, ...] = (
    *_CREATE_FLAGS,
    ("detach,d", SWITCH, "do not wait for the process to end"),
    ("keep", SWITCH, "do not delete the container when it has ended"),
    ("no-subreaper", SWITCH, "leave orphaned processes to the caller's init"),
)


def _create(given: Arguments, context: Context) -> int:
    _create_container(given, context, is_held=True, detached=True)
    return 0


def _run(given: Arguments, context: Context) -> int:
    if given.has("detach"):
        _create_container(given, context, is_held=False, detached=True)
        return 0
    # Only here: a detached start needs nothing of it.
    from cais.runtime import foreground

    front = foreground.Front(adopts=not given.has("no-subreaper"))
    record, running = _create_container(given, context, is_held=False, detached=False)
    code = front.stay(running)
    if not given.has("keep"):
        control.destroy(record.id, record.directory)
        hooking.end(record.id, record.directory, record.bundle, context.log)
        record.remove()
    return code


def _create_container(
    given: Arguments, context: Context, *, is_held: bool, detached: bool
) -> tuple[Record, Running]:
    (container_id,) = given.rest
    bundle = _enter_bundle(given)
    config = load_config(bundle)
    needs_terminal = config["process"].get("terminal", False)
    directory = state.reserve(context.root, container_id)
    try:
        handing.check_terminal(given, needs_terminal=needs_terminal, detached=detached)
        _check_root(bundle, config)
        state.keep_documents(directory, bundle)
        stdio = None if needs_terminal else Stdio(0, 1, 2)
        hold_fd = _make_fifo(directory) if is_held else -1
        verdict_fd = hooking.make_verdict(directory, config) if is_held else -1
        habits = _habits(given, context)
        launch = starter.begin(
            *(container_id, bundle),
            stdio=stdio,
            hold_fd=hold_fd,
            verdict_fd=verdict_fd,
            habits=habits,
        )
        try:
            record, running = _finish(given, context, launch, (directory, bundle))
        except BaseException:
            hooking.end(container_id, directory, bundle, context.log)
            raise
    except BaseException:
        state.discard(directory)
        raise
    return record, running


def _finish(
    given: Arguments, context: Context, launch: Launch, places: tuple[str, str]
) -> tuple[Record, Running]:
    """Wait until the container is made, write it down, and tell whoever was named.

    Whatever fails: nobody could name the container then, so it is ended.
    """
    (container_id,), (directory, bundle) = given.rest, places
    running = handing.wait(launch)
    try:
        facts = running.pid, running.start_ticks
        record = state.save(directory, container_id, bundle, *facts)
        handing.hand_over(given, running, context.log)
    except BaseException:
        handing.end(running)
        control.destroy(container_id, directory)
        raise
    return record, running


def _habits(given: Arguments, context: Context) -> Habits:
    habits = Habits()
    habits.has_own_keyring = not given.has("no-new-keyring")
    habits.pivots = not given.has("no-pivot")
    habits.by_systemd = context.by_systemd
    handing.preserve(given, habits)
    return habits


def _enter_bundle(given: Arguments) -> str:
    """Return the absolute path of the bundle, made the working directory as runc does."""
    path = given.text("bundle", ".")
    if given.text("pid-file"):  # the caller's; a console socket is looked for in the bundle
        given.flags["pid-file"] = [os.path.abspath(given.text("pid-file"))]
    try:
        os.chdir(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"chdir {path}: {reason}") from None
    if not os.path.exists("config.json"):
        raise NotFoundError("JSON specification file config.json not found")
    return os.getcwd()


def _check_root(bundle: str, config: Config) -> None:
    path = os.path.join(bundle, config.get("root", {}).get("path", "rootfs"))
    if os.path.exists(f"{bundle}/cais.json"):
        return
    if not os.path.exists(path):
        raise InvalidArgumentError(f"invalid rootfs: stat {path}: no such file or directory")
    if not os.path.isdir(path):
        raise InvalidArgumentError(f"invalid rootfs: {path}: not a directory")


def _make_fifo(directory: str) -> int:
    """Make what ``start`` writes to, and open the end the container waits at."""
    path = f"{directory}/{state.START_FIFO}"
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _start(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    status = record.status()
    if status == "stopped":
        raise ConflictError("cannot start a container that has stopped")
    if status == "running":
        raise ConflictError("cannot start an already running container")
    if status != "created":
        raise ConflictError(f"cannot start a container in the {status} state")
    verdict_fd = hooking.open_verdict(record)
    _let_go(record)
    if verdict_fd >= 0:
        hooking.conclude_start(record, verdict_fd, context.log)
    return 0


def _let_go(record: Record) -> None:
    """Let the container's process execute its program.

    Raises:
        ConflictError: it is too late, or somebody else was faster.

    """
    try:
        fifo_fd = os.open(record.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConflictError("cannot start a container that has stopped") from error
    try:
        os.unlink(record.fifo)  # before the word: of two starts, one does not find it
        os.write(fifo_fd, b"0")
    except FileNotFoundError:
        raise ConflictError("cannot start an already running container") from None
    finally:
        os.close(fifo_fd)


CREATE = Verb("create", "create a container, ready to be started", _create, flags=_CREATE_FLAGS)
RUN = Verb("run", "create and start a container", _run, flags=_RUN_FLAGS)
START = Verb("start", "start the program of a created container", _start)
