"""Rows as a table, JSON lines or a Go template: what ``--format`` and ``--quiet`` choose."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from cais.cli.template import Template
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MIN_WIDTH, GAP = 10, 3
_FIELD = re.compile(r"{{\s*(?:\w+\s+)?\.(\w+)[^}]*}}")


def format_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table; its columns start where Docker's do."""
    table = [list(row) for row in rows]
    widths = [max(MIN_WIDTH, GAP + max(map(len, column))) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        yield "".join([*cells, row[-1]])


def format_rows(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], chosen: str | None
) -> Iterator[str]:
    """Yield the lines of ``rows``.

    Args:
        rows: one mapping of field to text each, also of fields no default column shows.
        columns: field to heading of the default table, in order.
        chosen: ``--format``: ``json``, ``table``, ``table <template>`` or a template.

    Raises:
        InvalidArgumentError: not a template.

    """
    if chosen == "json":
        yield from (json.dumps(row, separators=(",", ":")) for row in rows)
    elif chosen is None or chosen.strip() == "table":
        body = [[row[field] for field in columns] for row in rows]
        yield from format_table([list(columns.values()), *body])
    elif chosen.startswith("table "):
        yield from _format_chosen_table(rows, columns, _unescape(chosen[6:].strip()))
    else:
        template = Template(_unescape(chosen))
        yield from (template.render(row) for row in rows)


def _format_chosen_table(
    rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], text: str
) -> Iterator[str]:
    template = Template(text)
    headings = {name: heading_of(name, columns) for name in _FIELD.findall(text)}
    for name in headings:
        if rows and name not in rows[0]:
            raise InvalidArgumentError(f"template: can't evaluate field {name}")
    lines = [template.render(headings), *(template.render(row) for row in rows)]
    yield from format_table([line.split("\t") for line in lines])


def heading_of(field: str, columns: Mapping[str, str]) -> str:
    """Return a field's heading: the known one, or its words in capitals."""
    return columns.get(field) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", field).upper()


def _unescape(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n")
