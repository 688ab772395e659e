"""``json_text`` reads and writes what the standard library's ``json`` does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from cais.spec import json_text

DOCUMENTS = [
    '{"a": [1, -2.5e3, true, false, null], "b": {"c": "\\u00e9\\n\\ud83d\\ude00"}, "é": ""}',
    " \t\r\n[ ] \n",
    '"text"',
    "12345678901234567890",
    "-0",
    "{}",
]
FAULTY = ["", " ", "{", '{"a" 1}', "[1,]", "[1] x", "nul", "'a'", '"\t"', "\ufeff{}", "\u00a0[]"]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_reads_and_writes_as_the_standard_library(text: str) -> None:
    value = json.loads(text)
    assert json_text.decode(text) == value
    assert json_text.decode(text.encode()) == value
    assert json_text.encode(value) == json.dumps(value)
    assert json_text.encode(value, indent=2) == json.dumps(value, indent=2)
    assert json_text.encode(value, ascii_only=False, compact=True) == json.dumps(
        value, ensure_ascii=False, separators=(",", ":")
    )


@pytest.mark.parametrize("text", FAULTY)
def test_says_what_the_standard_library_says(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        json_text.decode(text)
    assert str(found.value) == str(expected.value)


def test_constants_are_read_and_not_written() -> None:
    assert json_text.decode("[Infinity, -Infinity]") == [math.inf, -math.inf]
    assert math.isnan(json_text.decode("NaN"))
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="Out of range float values"):
            json_text.encode([value])


def test_rules_decide_about_objects_and_numbers() -> None:
    seen: list[Any] = []
    rules = json_text.Rules(
        object_pairs_hook=lambda pairs: seen.append(pairs) or tuple(pairs),
        parse_constant=lambda name: f"<{name}>",
        parse_float=lambda text: float(text) + 1,
    )
    assert json_text.decode('{"a": 1.5, "a": NaN}', rules) == (("a", 2.5), ("a", "<NaN>"))
    assert seen == [[("a", 2.5), ("a", "<NaN>")]]


def test_what_a_rule_raises_comes_through() -> None:
    def refuse(name: str) -> float:
        raise KeyError(name)

    with pytest.raises(KeyError, match="NaN"):
        json_text.decode("[NaN]", json_text.Rules(parse_constant=refuse))


def test_only_json_values_are_written() -> None:
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        json_text.encode({"a": {1}})


def test_works_without_the_c_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "make_scanner", None)
    monkeypatch.setattr(json_text, "make_encoder", None)
    assert json_text.decode(b'{"a": [1]}') == {"a": [1]}
    assert json_text.encode({"a": [1]}, compact=True) == '{"a":[1]}'
