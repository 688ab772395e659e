"""Failures of the engine, with the texts that Docker's clients know."""

from __future__ import annotations

from cais.errors import (
    AlreadyExistsError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
)


class ContainerNotFoundError(NotFoundError):
    """No container has this name, id or id prefix."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such container: {ref}")
        self.ref = ref


class ExecNotFoundError(NotFoundError):
    """No exec has this id."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such exec instance: {ref}")
        self.ref = ref


class NameConflictError(AlreadyExistsError):
    """The container name is taken; ``holder`` is the id of the container that has it."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f'Conflict. The container name "{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
        self.name = name
        self.holder = holder


class NotRunningError(ConflictError):
    """The operation needs a running container."""

    def __init__(self, container: str, action: str = "") -> None:
        super().__init__(f"{action}container {container} is not running")


class PausedError(ConflictError):
    """The operation needs a container that is not paused."""

    def __init__(self, container: str, action: str) -> None:
        super().__init__(f"container {container} is paused, unpause the container before {action}")


class RestartingError(ConflictError):
    """The operation must wait for the restart."""

    def __init__(self, container: str) -> None:
        super().__init__(
            f"container {container} is restarting, wait until the container is running"
        )


class RemovalInProgressError(ConflictError):
    """Someone else is removing the container already."""

    def __init__(self, container: str) -> None:
        super().__init__(f"removal of container {container} is already in progress")


class AlreadyStartedError(NotModifiedError):
    """Start of a running container."""

    def __init__(self, container: str) -> None:
        super().__init__(f"container {container} is already running")


class AlreadyStoppedError(NotModifiedError):
    """Stop of a container that does not run."""

    def __init__(self, container: str) -> None:
        super().__init__(f"container {container} is already stopped")


class CommandLaunchError(InvalidArgumentError):
    """The user's program cannot be executed (HTTP 400); ``exit_code`` is 126 or 127."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ContainerLaunchError(InternalError):
    """The container cannot be set up (HTTP 500); ``exit_code`` is 128."""

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.exit_code = exit_code
