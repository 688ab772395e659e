"""JSON that has one meaning: what another parser would read differently is refused.

The standard decoder keeps the last of duplicate keys, accepts NaN and Infinity, turns 1e999 into
infinity and lets RecursionError escape. A document from outside must not exploit any of these, so
every room that decodes such a document without msgspec comes through here.

Import-light: the shim and the runtime load it.

Spec: RFC 8259; sections 4 (unique names), 6 (no NaN), 8.1 (UTF-8, no byte order mark).
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError
from cais.spec import json_text

TYPE_CHECKING = False  # mypy knows the name; importing typing costs 8 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_DEPTH = 100  # so that whoever walks a document may do so recursively
DEFAULT_LIMIT_BYTES = 4 * 1024 * 1024


_CONTAINERS = (dict, list)
_TOO_DEEP = f"invalid JSON: nested too deeply, more than {MAX_DEPTH} levels"


class InvalidJsonError(InvalidArgumentError):
    """The text is not strict JSON; the message says where or why, and quotes no values."""


def loads(text: bytes | str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Any:  # noqa: ANN401 - any JSON value
    """Decode one JSON document.

    Args:
        text: UTF-8 when bytes.
        limit_bytes: a longer text is refused before it is looked at.

    Raises:
        InvalidJsonError: too long, not UTF-8, malformed, a duplicate key, a number outside
            what a double or 4300 digits can hold, or nested deeper than ``MAX_DEPTH``.

    """
    if len(text) > limit_bytes:
        raise InvalidJsonError(f"JSON document of {len(text)} bytes: the limit is {limit_bytes}")
    try:
        if isinstance(text, bytes | bytearray | memoryview):
            text = bytes(text).decode("utf-8")
        return _decode(text)
    except UnicodeDecodeError as exc:
        raise InvalidJsonError(f"invalid JSON: not UTF-8 at byte {exc.start}") from exc
    except RecursionError as exc:
        raise InvalidJsonError(_TOO_DEEP) from exc
    except UnicodeEncodeError as exc:
        raise InvalidJsonError("invalid JSON: half of a surrogate pair") from exc
    except ValueError as exc:
        raise InvalidJsonError(f"invalid JSON: {_fault(exc)}") from exc


def dumps(document: object) -> bytes:
    """Encode compactly, as UTF-8; NaN and Infinity are a ValueError."""
    return json_text.encode(document, ascii_only=False, compact=True).encode()


def _decode(text: str) -> Any:  # noqa: ANN401 - any JSON value
    document = json_text.decode(text, _RULES)
    _check_depth(document)
    if "\\ud" in text.lower():  # an escaped surrogate: alone it is text nobody can encode
        dumps(document)
    return document


def _check_depth(document: object) -> None:
    level: list[Any] = [document] if isinstance(document, _CONTAINERS) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if isinstance(child, _CONTAINERS)
        ]
        if not level:
            return
    raise InvalidJsonError(_TOO_DEEP)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidJsonError(f"invalid JSON: duplicate key {name[:64]!r}")
        seen.add(name)
    raise AssertionError("unreachable: fewer members than pairs means a duplicate")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJsonError(f"invalid JSON: {name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:  # infinity minus itself is NaN
        raise InvalidJsonError("invalid JSON: number out of range")
    return number


def _fault(error: ValueError) -> str:
    line, column = getattr(error, "lineno", 0), getattr(error, "colno", 0)
    if line:
        return f"{error.msg} at line {line} column {column}"  # type: ignore[attr-defined] # json's
    return "number out of range"  # an integer of more than 4300 digits


_RULES = json_text.Rules(
    object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_float=_finite
)
