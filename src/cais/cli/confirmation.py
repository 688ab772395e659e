"""Questions before something is destroyed."""

from __future__ import annotations

import sys


def is_confirmed(question: str) -> bool:
    """Ask on standard output; only "y" is a yes, and so is "Y"."""
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() == "y"
