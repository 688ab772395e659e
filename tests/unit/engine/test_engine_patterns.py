"""Patterns of image names: the rules of Go's path.Match."""

import pytest

from cais.engine.filters import matches_reference
from cais.engine.patterns import compile_pattern
from cais.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("busy*", "busybox", True),
        ("busy*", "library/busybox", False),
        ("*/*", "library/busybox", True),
        ("busybo?", "busybox", True),
        ("a?b", "a/b", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[!a]x", "bx", False),
        ("[!a]x", "!x", True),
        ("[c-a]x", "bx", False),
        ("[^c-a]x", "bx", True),
        (r"[\]]", "]", True),
        (r"[\-x]", "-", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a.c", "abc", False),
        ("", "", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert bool(compile_pattern(pattern).fullmatch(name)) is fits


@pytest.mark.parametrize(
    "pattern", ["[", "[]", "[]a]", "[-]", "[x-]", "[x-", "[^", "a[", "a\\", "[\\"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^syntax error in pattern$"):
        matches_reference(pattern, "busybox:latest")


def test_the_tag_may_be_left_out() -> None:
    assert matches_reference("busybox", "busybox:latest")
    assert matches_reference("busybox:l*", "busybox:latest")
    assert not matches_reference("busybox:1", "busybox:latest")
    assert matches_reference("localhost:5000/*", "localhost:5000/x:1")
