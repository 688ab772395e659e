"""Start the shim of a data root from a sealed copy of the interpreter."""

from __future__ import annotations


def launch(data_root: str, exec_root: str, *, timeout_s: float = 20) -> int:
    """Start a shim and return its pid once it listens.

    Raises:
        UnavailableError: it did not come up in time; the text holds the end of its log.
        ConflictError: another exec root's shim holds the data root.

    Blocks: until the shim listens, about 50 ms.
    """
    raise NotImplementedError
