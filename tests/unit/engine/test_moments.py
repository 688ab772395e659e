"""The three forms of a moment in a filter."""

from __future__ import annotations

import pytest

from cais.engine.moments import parse_moment
from cais.errors import InvalidArgumentError

NOW_NS = 1_000_000_000_000_000_000


@pytest.mark.parametrize(
    ("text", "moment_ns"),
    [
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("1.5", 1_500_000_000),
        ("0", 0),
        ("1m30s", NOW_NS - 90_000_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000_000_000),
        ("2023-11-14", 1_699_920_000_000_000_000),
    ],
)
def test_moments(text: str, moment_ns: int) -> None:
    assert parse_moment(text, NOW_NS) == moment_ns


@pytest.mark.parametrize("text", ["", "yesterday", "1.0000000001", "-1", "10x", "2023-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="failed to parse value as time or duration"):
        parse_moment(text, NOW_NS)
