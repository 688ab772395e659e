"""``cais history``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from cais.cli.human import ellipsis, format_age, short_id
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.client.client import quote
from cais.spec.units import human_size

if TYPE_CHECKING:
    from cais.cli.session import Session

COLUMNS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
CREATED_BY_WIDTH = 45


@command("history", "IMAGE", minimum=1, maximum=1)
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("-H", "--human/--no-human", default=True, help="Readable sizes and dates")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-q", "--quiet", is_flag=True, help="Only show image IDs")
def history(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    chosen: str | None,
    human: bool,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """Show the history of an image."""
    layers = session.client.get(f"/images/{quote(arguments[0])}/history").json()
    rows = [_row(layer, human=human, truncate=not no_trunc) for layer in layers]
    for line in format_rows(rows, COLUMNS, "{{.ID}}" if quiet else chosen):
        print(line)


def _row(layer: dict[str, Any], *, human: bool, truncate: bool) -> dict[str, str]:
    created_by = re.sub(r"[\t\n]+", " ", layer["CreatedBy"])
    if truncate:
        created_by = ellipsis(created_by, CREATED_BY_WIDTH)
    return {
        "ID": short_id(layer["Id"]) if truncate else layer["Id"],
        "CreatedSince": format_age(layer["Created"]) if human else str(layer["Created"]),
        "CreatedAt": str(layer["Created"]),
        "CreatedBy": created_by,
        "Size": human_size(layer["Size"], 3) if human else str(layer["Size"]),
        "Comment": layer["Comment"],
    }
