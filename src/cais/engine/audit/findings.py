"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    subject: str
    """What it is about: ``blob sha256:...``, ``image busybox:latest``."""

    problem: str
    """Completes the sentence."""

    repair: Callable[[], str] | None = None
    """Mends it and says how; None: nothing here can."""

    def __str__(self) -> str:
        return f"{self.subject} {self.problem}"
