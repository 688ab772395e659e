"""Create, start, exec, signal and delete containers: the runtime as functions of a bundle.

The caller is single-threaded, warm (everything imported), runs from a sealed copy of the
interpreter, and stays the parent of every process started here.
"""

from __future__ import annotations

from cais.runtime.launch import Launch, LaunchError, Running, Stdio

__all__ = ["Launch", "LaunchError", "Running", "Stdio"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.spec.runtime import Resources


def begin(
    container_id: str,
    bundle: str,
    *,
    stdio: Stdio | None,
    size: tuple[int, int] | None = None,
    hold_fd: int = -1,
) -> Launch:
    """Start the container of ``bundle`` (``config.json`` and, if there, ``cais.json``).

    Args:
        container_id: names the cgroup when the document does not.
        bundle: absolute path; docs/architecture.md 3.2.
        stdio: None with a terminal (``process.terminal``).
        size: (height, width) of the terminal; otherwise ``process.consoleSize``.
        hold_fd: when given, the read end of a FIFO: the child stops before execve until a byte
            arrives there (the ``created`` state). Borrowed.

    Raises:
        CaisError: the documents are wrong; nothing was started.
        LaunchError: the kernel refused the child; nothing is left.

    """
    raise NotImplementedError


def begin_exec(
    container_id: str,
    bundle: str,
    document: str,
    init_pidfd: int,
    *,
    stdio: Stdio | None,
    size: tuple[int, int] | None = None,
) -> Launch:
    """Start another process in the running container whose first process is ``init_pidfd``.

    Args:
        container_id: as given to ``begin``.
        bundle: as given to ``begin``.
        document: path of the process document (docs/architecture.md 3.2).
        init_pidfd: borrowed.
        stdio: None with a terminal.
        size: (height, width) of the terminal.

    Raises:
        CaisError: the document is wrong; nothing was started.

    """
    raise NotImplementedError


def signal_container(init_pidfd: int, signal: int) -> None:
    """Send ``signal`` to the container's first process.

    Raises:
        ConflictError: it has ended.

    """
    raise NotImplementedError


def kill_all(container_id: str, bundle: str) -> None:
    """Send SIGKILL to every process in the container's cgroup."""
    raise NotImplementedError


def pause(container_id: str, bundle: str) -> None:
    """Freeze every process of the container."""
    raise NotImplementedError


def resume(container_id: str, bundle: str) -> None:
    """Thaw the container."""
    raise NotImplementedError


def update(container_id: str, bundle: str, resources: Resources) -> list[str]:
    """Change limits of a running container; return warnings."""
    raise NotImplementedError


def destroy(container_id: str, bundle: str) -> bool:
    """Kill what is left in the container's cgroup and remove the cgroup; idempotent.

    Call it after the first process has been reaped.

    Returns:
        Whether the kernel's OOM killer ended a process of this container.

    """
    raise NotImplementedError
