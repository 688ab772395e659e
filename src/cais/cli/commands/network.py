"""``cais network``: list and inspect."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import click

from cais.cli.commands.inspect import inspect_each
from cais.cli.filters import encode_filters
from cais.cli.human import short_id
from cais.cli.options import command
from cais.cli.table import format_rows

if TYPE_CHECKING:
    from cais.cli.session import Session

COLUMNS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"}


@command("ls", "", maximum=0)
@click.option("-f", "--filter", "filters", multiple=True, help="Provide filter values")
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-q", "--quiet", is_flag=True, help="Only display network IDs")
def ls(
    session: Session,
    /,
    filters: tuple[str, ...],
    chosen: str | None,
    *,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List networks."""
    documents = session.client.get("/networks", {"filters": encode_filters(filters)}).json()
    rows = [
        {
            "ID": each["Id"] if no_trunc else short_id(each["Id"]),
            **{field: str(each[field]) for field in ("Name", "Driver", "Scope")},
        }
        for each in documents
    ]
    for line in format_rows(
        sorted(rows, key=itemgetter("Name")), COLUMNS, "{{.ID}}" if quiet else chosen
    ):
        print(line)


@command("inspect", "NETWORK [NETWORK...]", minimum=1)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
def inspect(session: Session, /, arguments: tuple[str, ...], chosen: str | None) -> int:
    """Display detailed information on one or more networks."""
    return inspect_each(session, arguments, ["network"], chosen)
