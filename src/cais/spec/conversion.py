"""msgspec, for more than one thread.

What msgspec knows of a Struct it works out at the first use, and keeps it on the class before it is
complete, for classes may contain themselves. Annotations are resolved by Python code, so another
thread may come in between; it takes the half for the whole and reads a null pointer (msgspec
0.22). Hence the first use of a class is made here, under a lock; linters refuse the others.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_lock = threading.Lock()
_known: set[type] = set()


def convert(document: Any, kind: type[T], *, from_attributes: bool = False) -> T:  # noqa: ANN401 - any JSON value
    """Return a document as a Struct, or another one's attributes.

    Raises:
        msgspec.ValidationError: it has another shape.

    """
    _learn(kind)
    return msgspec.convert(document, kind, from_attributes=from_attributes)  # noqa: TID251


def decoder(kind: type[T]) -> Callable[[bytes | str], T]:
    """Return a function that reads JSON; it raises ``msgspec.DecodeError``."""
    _learn(kind)
    return msgspec.json.Decoder(kind).decode  # noqa: TID251


def _learn(kind: type) -> None:
    if kind not in _known:
        with _lock:
            msgspec.json.Decoder(kind)  # noqa: TID251 - asks for all of the class, and what it has
            _known.add(kind)
