"""What is told of layers that are unpacked side by side, the lowest layer's first."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cais.images.layers import PackedLayer


class LayerTurns:
    """Holds back what is told of a layer until those below it are complete; of any thread."""

    def __init__(
        self, layers: Iterable[PackedLayer], tell: Callable[[PackedLayer, int], None]
    ) -> None:
        """Args: layers are those that will be unpacked, the lowest first; any other is not held."""
        self._tell = tell
        self._lock = threading.Lock()
        self._waiting = [(layer, list[int]()) for layer in layers]

    def report(self, layer: PackedLayer, current: int) -> None:
        """Pass on how many bytes of a layer were read, now or when it is its turn."""
        with self._lock:
            for other, held in self._waiting[1:]:
                if other is layer:
                    held.append(current)
                    return
            self._tell(layer, current)

    def complete(self, layer: PackedLayer) -> None:
        """Give the turn to the next; layers are complete in their order."""
        with self._lock:
            if self._waiting and self._waiting[0][0] is layer:
                self._advance()

    def finish(self) -> None:
        """Pass on what is left: somebody else brought a layer that was waited for."""
        with self._lock:
            while self._waiting:
                self._advance()

    def _advance(self) -> None:
        del self._waiting[0]
        for upper, held in self._waiting[:1]:
            for current in held:
                self._tell(upper, current)
            held.clear()
