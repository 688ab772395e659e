"""The ranges of ids that /etc/subuid and /etc/subgid give to users.

Spec: subuid(5), subgid(5): ``name or uid:first id:count`` a line.
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
_ID_LIMIT = 0xFFFFFFFF  # of the kernel: the last number is none


def load_ranges(path: str, name: str, uid: int) -> list[tuple[int, int]]:
    """Return the ranges of a user, (first id, count) in the order of the file.

    As Docker has it, those given to the number come first.

    Raises:
        InvalidArgumentError: a malformed line, whosever it is.
        OSError: there is no such file.

    """
    lines = list(_lines(path))
    return [
        (first, count)
        for owner in (str(uid), name)
        for whose, first, count in lines
        if whose == owner
    ]


def all_ranges(path: str) -> list[tuple[int, int]]:
    """Return the ranges of everybody; none where there is no file. Raises as ``load_ranges``."""
    try:
        return [(first, count) for _, first, count in _lines(path)]
    except FileNotFoundError:
        return []


def _lines(path: str) -> Iterator[tuple[str, int, int]]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            text = line.strip()
            if text and not text.startswith("#"):
                yield _parse(path, text)


def _parse(path: str, text: str) -> tuple[str, int, int]:
    parts = text.split(":")
    if len(parts) != 3:
        raise InvalidArgumentError(
            f"Cannot parse subuid/gid information: Format not correct for {path} file"
        )
    owner, *numbers = parts
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise InvalidArgumentError(
            f"String to int conversion failed during subuid/gid parsing of {path}: {text[:128]!r}"
        )
    first, count = map(int, numbers)
    if first + count > _ID_LIMIT:
        raise InvalidArgumentError(f"{path}: {text[:128]!r}: there are no such ids")
    return owner, first, count
