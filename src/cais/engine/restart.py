"""Restart policies: whether an ended container comes back, and after how long."""

from __future__ import annotations

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
STEADY_RUN_S = 10.0
"""A run of this length sets the delay back."""


def should_restart(
    name: str,
    maximum_retry_count: int,
    *,
    exit_code: int,
    restart_count: int,
    is_manually_stopped: bool,
) -> bool:
    """Whether the policy wants the container back."""
    if name == "always":
        return True
    if name == "unless-stopped":
        return not is_manually_stopped
    if name == "on-failure":
        return exit_code != 0 and (maximum_retry_count == 0 or restart_count < maximum_retry_count)
    return False


class Backoff:
    """The growing pause between restarts: 100 ms, doubled up to a minute."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def next_delay_s(self, run_s: float) -> float:
        """Return how long to wait after a run of ``run_s`` seconds."""
        if self._delay_s == 0 or run_s >= STEADY_RUN_S:
            self._delay_s = FIRST_DELAY_S
        else:
            self._delay_s = min(self._delay_s * 2, MAX_DELAY_S)
        return self._delay_s
