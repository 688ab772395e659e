"""Names of control groups: absolute inside a hierarchy, never climbing out of it."""

from __future__ import annotations

from cais.errors import InvalidArgumentError


def below(path: str) -> str:
    """Return the path of a group below another as ``/a/b``, or empty for the other itself.

    Raises:
        InvalidArgumentError: it leads out.

    """
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise InvalidArgumentError(f"bad sub cgroup path: {path}")
    return clean_path(path) if depth else ""


def is_systemd_path(path: str) -> bool:
    """Whether a ``cgroupsPath`` names a unit of systemd, ``slice:prefix:name``, not a directory."""
    return path.count(":") == 2 and "/" not in path


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
