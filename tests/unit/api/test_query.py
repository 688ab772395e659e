"""Query strings as Go and moby read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.api.query import Query, window_size
from cais.api.system import parse_timestamp_ns
from cais.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False), ("f", False), ("f=", False), ("f=0", False), ("f=no", False),
        ("f=false", False), ("f=FALSE", False), ("f=none", False), ("f=%20none%20", False),
        ("f=1", True), ("f=true", True), ("f=yes", True), ("f=2", True), ("f=off", True),
        ("f=0&f=1", False), ("f=1&f=0", True), ("g=1", False),
    ],
)  # fmt: skip
def test_flag(text: str, value: bool) -> None:
    assert Query(text).flag("f") is value


def test_flag_default_is_for_absence_only() -> None:
    assert Query("").flag("quiet", default=True) is True
    assert Query("quiet=").flag("quiet", default=True) is False


@pytest.mark.parametrize(
    "text", ["x", "1x", "1.5", "0x10", " 1", "1_0", "٣", "9" * 19, "-" + "9" * 19]
)
def test_integer_refuses(text: str) -> None:
    query = Query()
    query._values["n"] = [text]
    with pytest.raises(InvalidArgumentError, match=r"strconv\.Atoi: parsing"):
        query.integer("n")


def test_integer() -> None:
    assert Query("n=-1").integer("n") == -1
    assert Query("n=").integer("n") is None
    assert Query("").integer("n") is None


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("", {}),
        ('{"status":{"exited":true,"dead":true}}', {"status": ["exited", "dead"]}),
        ('{"status":["exited"]}', {"status": ["exited"]}),
        ("{}", {}),
    ],
)
def test_filters(text: str, filters: dict[str, list[str]]) -> None:
    query = Query()
    query._values["filters"] = [text]
    assert query.filters() == filters


@pytest.mark.parametrize(
    "text",
    ["x", "[]", "1", '{"a":1}', '{"a":[1]}', '{"a":{"b":1}}', '{"a":{},"a":{}}', '{"a":null}'],
)
def test_filters_refuses(text: str) -> None:
    query = Query()
    query._values["filters"] = [text]
    with pytest.raises(InvalidArgumentError, match="invalid filter"):
        query.filters()


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        query = Query(text)
    except InvalidArgumentError:
        return
    query.flag(text[:1])
    query.texts("a")


def test_many_parameters_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="1000 query parameters"):
        Query("a&" * 1001)


def test_window_size() -> None:
    assert window_size(Query("h=24&w=80")) == (24, 80)
    for text in ("", "h=1", "h=-1&w=1", "h=a&w=1", "h=4294967296&w=1"):
        with pytest.raises(InvalidArgumentError, match=r"invalid resize (height|width)"):
            window_size(Query(text))


def test_timestamp() -> None:
    assert parse_timestamp_ns("") is None
    assert parse_timestamp_ns("1700000000") == 1700000000 * 10**9
    assert parse_timestamp_ns("1700000000.000000001") == 1700000000 * 10**9 + 1
    assert parse_timestamp_ns("-1.5") == -1_500_000_000
    for text in ("x", "1e3", "nan", "1.0000000001", "2020-01-01T00:00:00Z"):
        with pytest.raises(InvalidArgumentError, match=r"strconv\.ParseInt"):
            parse_timestamp_ns(text)
