"""The OCI conformance table: every member of the schemas, and no test that is not there."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.runtime import features

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/oci-conformance.md"
SCHEMAS = ROOT.parent / "shared/specs/oci-runtime"
OTHER_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")


def shortened() -> dict[str, str]:
    """Return what the letters of the table stand for, as it explains them."""
    text = " ".join(TABLE.read_text().split())
    found = dict(re.findall(r"`([A-Z])`(?: is)? `([a-zA-Z/_.]+)`", text))
    return {letter: whole(place, found) for letter, place in found.items()}


def whole(place: str, letters: dict[str, str]) -> str:
    letter, mark, rest = place.partition("/") if place[1:2] == "/" else place.partition("::")
    return f"{letters[letter]}{mark}{rest}" if letter in letters else place


def section(name: str) -> str:
    """Return the text below a heading of the second level."""
    return TABLE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def listed() -> set[str]:
    """Return every member of the last section, with its braces written out."""
    found = set()
    for line in section("Members of the schemas").splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
                found.update(written_out(name))
    return found


def written_out(name: str) -> Iterator[str]:
    """Yield what ``a.{b,c}.d`` stands for; ``{}`` is any name."""
    parts = re.split(r"\{([a-zA-Z0-9,]+)\}", name)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    yield from map("".join, itertools.product(*choices))


def members(file: str, path: str = "", pointer: str = "") -> Iterator[str]:
    """Yield the path of every property of a schema; ``[]`` is any item, ``{}`` any name."""
    node: Any = json.loads((SCHEMAS / file).read_text())
    for step in filter(None, pointer.strip("/").split("/")):
        node = node[step]
    yield from of_node(node, file, path)


def of_node(node: dict[str, Any], file: str, path: str) -> Iterator[str]:
    if "$ref" in node:
        other, _, pointer = node["$ref"].partition("#")
        yield from members(other or file, path, pointer)
    for choice in (*node.get("allOf", ()), *node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from of_node(choice, file, path)
    for name, child in node.get("properties", {}).items():
        if path or name not in OTHER_PLATFORMS:
            here = f"{path}.{name}" if path else name
            yield here
            yield from of_node(child, file, here)
    if isinstance(node.get("items"), dict):
        yield from of_node(node["items"], file, f"{path}[]")
    for child in (*node.get("patternProperties", {}).values(), node.get("additionalProperties")):
        if isinstance(child, dict):
            yield from of_node(child, file, f"{path}{{}}")


@pytest.mark.skipif(not SCHEMAS.exists(), reason="the schemas are not beside the project")
def test_every_member_of_the_schemas_is_listed() -> None:
    wanted = set(members("config-schema.json"))
    wanted |= {f"state.{name}" for name in members("state-schema.json")}
    wanted |= {f"features.{name}" for name in members("features-schema.json")}
    assert listed() == wanted


def test_features_have_what_is_listed() -> None:
    for name in (one for one in listed() if one.startswith("features.")):
        node: Any = features.document()
        for step in name.split(".")[1:]:
            assert step in node, name
            node = node[step]


def test_every_test_that_is_named_exists() -> None:
    letters = shortened()
    names = re.findall(r"`([^`]*::test_[^`]*|[^`]*/test_[^`]*)`", TABLE.read_text())
    assert [name for name in names if not exists(whole(name, letters))] == []


def exists(name: str) -> bool:
    """Say whether a file has a test; a name that begins with ``::`` is of the row's own file."""
    file, _, function = name.partition("::")
    function = function.partition("[")[0].replace("*", r"\w*")
    places = sorted((ROOT / "tests").glob(file or "**/*.py"))
    texts = [place.read_text() for place in places]
    return any(re.search(rf"def {function}\w*\(", text) for text in texts) if texts else False
