"""How many descriptors, and so connections, the process may have."""

from __future__ import annotations

import resource

_ENOUGH = 65536


def raise_descriptor_limit() -> int:
    """Allow the process as many descriptors as it may have; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(hard, _ENOUGH) if hard != resource.RLIM_INFINITY else _ENOUGH
