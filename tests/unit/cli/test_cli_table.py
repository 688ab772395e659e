import pytest

from cais.cli.table import format_rows, format_table
from cais.errors import InvalidArgumentError

COLUMNS = {"ID": "CONTAINER ID", "Names": "NAMES"}
ROWS = [
    {"ID": "0123456789ab", "Names": "a", "RunningFor": "2 days"},
    {"ID": "x", "Names": "longer", "RunningFor": "now"},
]


def test_columns_are_three_apart_and_ten_wide_at_least() -> None:
    assert list(format_table([["A", "B", "C"], ["12345678", "x", "y"]])) == [
        "A          B         C",
        "12345678   x         y",
    ]


def test_the_default_table_has_its_heading_without_rows() -> None:
    assert list(format_rows([], COLUMNS, None)) == ["CONTAINER ID   NAMES"]
    assert list(format_rows(ROWS, COLUMNS, None))[1:] == [
        "0123456789ab   a",
        "x              longer",
    ]


def test_chosen_columns() -> None:
    assert list(format_rows(ROWS, COLUMNS, "table {{.Names}}\\t{{.RunningFor}}")) == [
        "NAMES     RUNNING FOR",
        "a         2 days",
        "longer    now",
    ]


def test_template_and_json() -> None:
    assert list(format_rows(ROWS, COLUMNS, "{{.Names}}:{{.ID}}")) == ["a:0123456789ab", "longer:x"]
    assert next(format_rows(ROWS, COLUMNS, "json")) == (
        '{"ID":"0123456789ab","Names":"a","RunningFor":"2 days"}'
    )


@pytest.mark.parametrize("chosen", ["{{.NoSuch}}", "table {{.NoSuch}}", "{{broken"])
def test_unknown_fields_are_refused(chosen: str) -> None:
    with pytest.raises(InvalidArgumentError):
        list(format_rows(ROWS, COLUMNS, chosen))
