"""Strict JSON: a document another parser would read differently is refused (SECURITY.md P5, D2)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import InvalidArgumentError
from cais.spec.strict_json import InvalidJsonError, dumps, loads

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a":1,"a":2}', "duplicate key 'a'"),
        ('{"x":{"b":1,"a":2,"b":3}}', "duplicate key 'b'"),
        ('{"a":1,"\\u0061":2}', "duplicate key 'a'"),
        ("NaN", "NaN is not a JSON number"),
        ("[Infinity]", "Infinity is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("[1e999]", "number out of range"),
        ("[-1e999]", "number out of range"),
        ("[" + "9" * 5000 + "]", "number out of range"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("", "at line 1 column 1"),
        ("{", "at line 1 column 2"),
        ("{} {}", "Extra data at line 1 column 4"),
        ('{"a":\n  tru}', "at line 2 column 3"),
        ("\ufeff{}", "BOM"),
        ('"\\ud800"', "surrogate"),
        ('{"\\uDFFF": 1}', "surrogate"),
    ],
)
def test_another_meaning_is_refused(text: str, why: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(InvalidJsonError, match=why) as refused:
            loads(form)
        assert isinstance(refused.value, InvalidArgumentError)
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize("text", [b"\xff\xfe{\x00}\x00", b'"\xff"', b"\x00\x00\x00{"])
def test_only_utf8(text: bytes) -> None:
    with pytest.raises(InvalidJsonError):
        loads(text)


def test_the_limit_is_checked_before_the_text() -> None:
    assert loads(b"[1]", 3) == [1]
    with pytest.raises(InvalidJsonError, match="4 bytes: the limit is 3"):
        loads(b"[12]", 3)


def test_depth_is_bounded_and_counted_rightly() -> None:
    assert loads("[" * 100 + "]" * 100)
    for text in ("[" * 101 + "]" * 101, '{"a":[' * 51 + "]}" * 51):
        with pytest.raises(InvalidJsonError, match="nested too deeply"):
            loads(text)
    assert loads("[" + "[1]," * 1000 + "2]")


def test_a_surrogate_pair_is_one_character() -> None:
    assert loads('"\\ud83d\\ude00"') == "😀"


def test_ordinary_documents_are_read_as_json_reads_them() -> None:
    text = json.dumps({"a": [1, -2.5, True, None, "é"], "b": {"c": 10**20}})
    assert loads(text) == json.loads(text)


def test_encoding_refuses_what_decoding_would() -> None:
    assert dumps({"a": "é"}) == '{"a":"é"}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("nan"))
