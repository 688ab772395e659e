"""Names of control groups: absolute inside a hierarchy, never climbing out of it."""

from __future__ import annotations

from cais.errors import InvalidArgumentError


def clean_path(path: str) -> str:
    """Return ``path`` as ``/a/b``: ``..`` stays below the root, empty parts and dots go.

    Raises:
        InvalidArgumentError: nothing left but the root itself, a control character, or a part
            longer than a file name.

    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise InvalidArgumentError(f"invalid cgroup path {path[:64]!r}: it names the root cgroup")
    if any(len(part.encode()) > 255 or not part.isprintable() for part in parts):
        raise InvalidArgumentError(f"invalid cgroup path {path[:64]!r}")
    return "/" + "/".join(parts)
