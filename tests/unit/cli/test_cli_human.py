"""Ages, times and ids, as Docker prints and reads them."""

import pytest

from cais.cli.human import (
    ellipsis,
    format_age,
    format_duration,
    parse_time,
    short_id,
)


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
