"""Two subjects in turns, many times: the machine's mood is the same for both."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one subject, in the row's unit."""

    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The 10th and the 90th percentile."""
        ordered = sorted(self.values)
        last = len(ordered) - 1
        return ordered[round(last * 0.1)], ordered[round(last * 0.9)]


@dataclass(frozen=True)
class Row:
    """One line of the table; without a peer (not installed, or unusable here) only our number."""

    name: str
    unit: str
    peer_name: str
    ours: Sample
    peer: Sample | None
    budget: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.peer is None or not self.peer.median:
            return None
        return self.ours.median / self.peer.median

    @property
    def is_over_budget(self) -> bool:
        if self.ratio is None or self.budget is None:
            return False
        return self.ratio > self.budget


def in_turns(
    ours: Callable[[], float], peer: Callable[[], float] | None, times: int, warm_up: int = 2
) -> tuple[Sample, Sample | None]:
    """Return what both give, called alternately; the first ``warm_up`` turns are not counted."""
    our_values, peer_values = [], []
    for turn in range(times + warm_up):
        our_value = ours()
        peer_value = peer() if peer else None
        if turn >= warm_up:
            our_values.append(our_value)
            if peer_value is not None:
                peer_values.append(peer_value)
    return Sample(our_values), Sample(peer_values) if peer else None


def milliseconds(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000
