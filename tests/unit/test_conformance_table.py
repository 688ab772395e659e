"""The OCI conformance table: every member of the schemas, and what `features` says."""

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
