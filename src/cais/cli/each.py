"""Commands that do the same to each of their arguments."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cais.cli.failures import describe
from cais.errors import CaisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def for_each(names: Iterable[str], action: Callable[[str], object]) -> int:
    """Call ``action`` with every name, also after a failure.

    Prints what ``action`` returns, or the name itself where it returns None.

    Returns:
        The exit status: 1 if any failed.

    """
    status = 0
    for name in names:
        try:
            result = action(name)
        except CaisError as error:
            print(describe(error), file=sys.stderr)
            status = 1
        else:
            print(name if result is None else result, flush=True)
    return status
