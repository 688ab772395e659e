"""The kernel's reasons in small letters, as the engines' own runtime tells them.

Callers look for ``no such file or directory`` and ``permission denied`` in what a runtime says.
"""

from __future__ import annotations

import os


def sentence(error: OSError) -> str:
    """Return what ``error`` says of itself: the step, its operands and the reason."""
    text = error.strerror or str(error)
    why = os.strerror(error.errno or 0)
    return text.replace(why, why.lower())
