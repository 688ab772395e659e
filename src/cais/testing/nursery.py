"""A nursery, as the shim keeps one, for starts and execs of the process that tests."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from cais.runtime import spares
from cais.runtime.nursery import Nursery

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery of the calling process; no spare of it is left."""
    made = Nursery()
    spares.set_maker(made)
    try:
        yield made
    finally:
        spares.set_maker(None)
        while (left := spares.take()) is not None:
            left.close()
        made.close()
