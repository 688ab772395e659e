"""What the documents name is there: tests, files, links, decisions."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "docs/adr/*.md")
    for path in ROOT.glob(pattern)
)
NAMED = re.compile(r"`([^`\s]*(?:::test_|/test_)[^`\s]*)`")


def letters_of(text: str) -> dict[str, str]:
    """Return what the letters of a document stand for, as it explains them."""
    pattern = r"`([A-Z])`(?: is| stands for)? `([a-zA-Z/_.]+)`"
    found = dict(re.findall(pattern, " ".join(text.split())))
    return {letter: written_out(place, found) for letter, place in found.items()}


def written_out(name: str, letters: dict[str, str]) -> str:
    is_short = name[:1] in letters and name[1:2] in ("", "/", "_", ":")
    return letters[name[0]] + name[1:] if is_short else name


def named_tests(text: str) -> list[tuple[str, str]]:
    """Return file and function of each test that is named; before ``::`` may stand nothing."""
    letters = letters_of(text)
    names = [written_out(name, letters) for name in NAMED.findall(text)]
    parts = [name.partition("::") for name in names if name not in letters.values()]
    return [(file.removeprefix("tests/"), test.partition("[")[0]) for file, _, test in parts]


def is_there(file: str, function: str) -> bool:
    """Say whether a file (or one of those a pattern means) has such a test, or is there at all."""
    paths = [path for path in (ROOT / "tests").glob(file or "**/*.py") if path.is_file()]
    if not function:
        return bool(paths) or (ROOT / "tests" / file).is_dir()
    wanted = re.compile("def " + function.replace("*", r"\w*") + r"\w*\(")
    return any(wanted.search(path.read_text()) for path in paths)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    named = named_tests((ROOT / document).read_text())
    assert [name for name in named if not is_there(*name)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    place = (ROOT / document).parent
    assert [link for link in links if not (place / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_decision_that_is_named_is_written_down(document: str) -> None:
    written = {name[:4] for name in os.listdir(ROOT / "docs/adr")}
    named = set(re.findall(r"\badr/([0-9]{4})", (ROOT / document).read_text()))
    assert named <= written
