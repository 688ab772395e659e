"""Names of control groups: absolute inside a hierarchy, never climbing out of it."""

from __future__ import annotations

from cais.errors import InvalidArgumentError

_UNIT_NAME_LIMIT = 255
_UNIT_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.\\-@")


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


def check_unit(name: str) -> None:
    """Check the name of a unit of systemd. InvalidArgumentError: it is none."""
    if not name or not _UNIT_LETTERS.issuperset(name) or len(name) > _UNIT_NAME_LIMIT:
        raise InvalidArgumentError(f"invalid unit name {name[:64]!r}")
    if name[0] in ".-":
        raise InvalidArgumentError(f"invalid unit name {name[:64]!r}")


def expand_slice(name: str) -> str:
    """Return the directory of a slice unit: ``/a.slice/a-b.slice`` for ``a-b.slice``.

    Raises:
        InvalidArgumentError: not the name of a slice, or one with a colon, which would be another
            place in ``slice:prefix:name``.

    """
    if name == "-.slice":  # the root
        return ""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or "" in parts or "/" in name or ":" in name:
        raise InvalidArgumentError(f"invalid slice name: {name[:64]}")
    check_unit(name)
    steps = ("-".join(parts[: count + 1]) for count in range(len(parts)))
    return "".join(f"/{step}.slice" for step in steps)


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
