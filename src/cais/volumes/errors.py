"""Failures of the volume room, with Docker's texts."""

from collections.abc import Collection

from cais.errors import ConflictError, InvalidArgumentError, NotFoundError


class VolumeNotFoundError(NotFoundError):
    """No volume has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")
        self.name = name


class VolumeDriverNotFoundError(NotFoundError):
    """Only ``local`` exists."""

    def __init__(self, driver: str) -> None:
        super().__init__(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        self.driver = driver


class VolumeInUseError(ConflictError):
    """Containers refer to the volume."""

    def __init__(self, name: str, users: Collection[str]) -> None:
        super().__init__(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
        self.name = name
        self.users = frozenset(users)


class InvalidVolumeNameError(InvalidArgumentError):
    """The name does not fit the local driver's grammar."""


class InvalidMountError(InvalidArgumentError):
    """A mount that was asked for makes no sense."""
