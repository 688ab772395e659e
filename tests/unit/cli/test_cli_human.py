# ruff: noqa: E501 - a case stands on one line

import pytest

from cais.cli.human import (
    ellipsis,
    format_age,
    format_duration,
    format_size,
    parse_duration_ns,
    parse_size,
    parse_time,
    short_id,
)
from cais.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (4_261_550, "4.26MB"), (123_456_789, "123MB"), (2e9, "2GB")],
)  # fmt: skip
def test_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("64m", 64 << 20), ("64MB", 64 << 20), ("1.5g", 3 << 29), ("512", 512), ("10 kib", 10240), ("1b", 1)],
)  # fmt: skip
def test_parsed_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "64x", "1e3", "64mm", "½"])
def test_malformed_sizes(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1s", 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("10ms", 10**7)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1 s", "-1s", "1x"])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert format_age(1000, 1000 + seconds) == f"{text} ago"


def test_times() -> None:
    assert parse_time("1970-01-01T00:00:01.5Z") == 1.5
    assert parse_time("1970-01-01T02:00:00+02:00") == 0.0
    assert parse_time("1969-12-31T23:00:00-01:00") == 0.0
    assert parse_time("0001-01-01T00:00:00Z") == 0.0
    assert format_age(0) == "N/A"


def test_short_forms() -> None:
    assert short_id("sha256:" + "ab" * 32) == "ab" * 6
    assert ellipsis("abcdef", 6) == "abcdef"
    assert ellipsis("abcdefg", 6) == "abcde…"
