"""Wait for what nobody tells of: the doing of another process, or of the kernel in its own time.

A deadline is for what never happens, so it is far from what the thing takes on a machine that does
ten others: a test that reaches it has found something, and was not just unlucky.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from cais.testing.isolation import PATIENCE

_Seen = TypeVar("_Seen")
What = str | Callable[[], object]
"""What is the matter if it never comes; or how to find that out, then."""

PATIENCE_S = 60 * PATIENCE
"""For a deadline that a test hands to somebody else."""

_LOOK_S = 0.01


def wait_until(look: Callable[[], _Seen], what: What = "it did not happen") -> _Seen:
    """Look again until there is something true to see, and return that.

    Raises:
        AssertionError: it did not come within ``PATIENCE_S``; the text is ``what``.

    """
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, _text(what)
        time.sleep(_LOOK_S)
    return seen


async def until(look: Callable[[], _Seen], what: What = "it did not happen") -> _Seen:
    """Wait as :func:`wait_until` does, while the event loop runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, _text(what)
        await asyncio.sleep(_LOOK_S)
    return seen


def _text(what: What) -> str:
    return what if isinstance(what, str) else str(what())
