"""Durations, as Go reads them."""

from __future__ import annotations

import pytest

from cais.errors import InvalidArgumentError
from cais.spec.durations import parse_duration_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("10ms", 10**7),
        (".5us", 500),
        ("3µs7ns", 3007),
        ("2.h", 7200 * 10**9),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1 s", "-1s", "1x", "1s ", "٣s", ".s"])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid duration"):
        parse_duration_ns(text)
