"""What a failed mount says: Docker's words about the mount, then the kernel's reason."""

from __future__ import annotations

from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.mounts import MountPlan


class explained:  # noqa: N801 - reads as a function
    """Turn a kernel error inside into Docker's text about this mount."""

    __slots__ = ("_entry",)

    def __init__(self, entry: MountPlan) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            message = f"{self._entry.describe()}: {sentence(error)}"
            raise LaunchError(message, errno=error.errno or 0, step="mount") from error
