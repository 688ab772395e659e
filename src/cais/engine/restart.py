"""Restart policies: whether an ended container comes back, and after how long."""

from __future__ import annotations

from cais.errors import InvalidArgumentError

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
STEADY_RUN_S = 10.0
"""A run of this length sets the delay back."""

POLICIES = ("no", "always", "on-failure", "unless-stopped")


class RestartPolicyError(InvalidArgumentError):
    """The restart policy contradicts itself; Docker's texts."""


def check_policy(name: str, maximum_retry_count: int) -> None:
    """Refuse what Docker refuses.

    Raises:
        RestartPolicyError: unknown policy, or a retry count that makes no sense.

    """
    if name and name not in POLICIES:
        raise RestartPolicyError(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if maximum_retry_count and name != "on-failure":
        text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        if maximum_retry_count < 0:
            text += " and cannot be negative"
        raise RestartPolicyError(text)
    if maximum_retry_count < 0:
        raise RestartPolicyError("invalid restart policy: maximum retry count cannot be negative")


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
