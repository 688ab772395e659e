"""The distribution table names no test that is not there, and leaves none of its files out."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

TESTS = Path(__file__).parents[2]
TABLE = TESTS.parent / "docs/distribution-conformance.md"
LETTER = "unit/registry/test_distribution"


def named() -> Iterator[tuple[str, str]]:
    """Yield file and pattern of every test of the table."""
    file = ""
    for text in re.findall(r"`([^`\s]+)`", TABLE.read_text()):
        place, mark, test = text.partition("::")
        if place.endswith(".py"):
            file = place.replace("D_", f"{LETTER}_", 1) if place.startswith("D_") else place
        if mark or place.endswith(".py"):
            yield file, test or "*"


def names_in(file: str) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", (TESTS / file).read_text(), re.MULTILINE))


def test_every_test_of_the_table_exists() -> None:
    found = list(named())
    assert len(found) > 50
    for file, pattern in found:
        assert any(fnmatch(test, pattern) for test in names_in(file)), f"{file}::{pattern}"


def test_every_test_of_the_specification_is_in_the_table() -> None:
    patterns: dict[str, set[str]] = {}
    for file, pattern in named():
        patterns.setdefault(file, set()).add(pattern)
    for path in TESTS.glob(f"{LETTER}_*.py"):
        file = str(path.relative_to(TESTS))
        if path.name == Path(__file__).name:
            continue
        for test in names_in(file):
            assert any(fnmatch(test, each) for each in patterns[file]), f"{file}::{test}"
