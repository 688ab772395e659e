"""What the daemon says about itself and its host."""

from __future__ import annotations

from typing import Any


class System:
    """``/version`` and ``/info``."""

    def version(self) -> dict[str, Any]:
        """Return the document of ``GET /version``. Not a coroutine."""
        raise NotImplementedError

    async def info(self) -> dict[str, Any]:
        """Return the document of ``GET /info``."""
        raise NotImplementedError

    def ping(self) -> dict[str, str]:
        """Return the headers of ``/_ping`` beside the API's own: OSType, Swarm, ... ."""
        raise NotImplementedError
