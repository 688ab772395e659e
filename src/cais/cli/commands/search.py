"""``cais search``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cais.cli.docker_config import registry_auth
from cais.cli.filters import encode_filters
from cais.cli.human import ellipsis
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.spec.reference import split_domain

if TYPE_CHECKING:
    from cais.cli.session import Session

COLUMNS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}
DESCRIPTION_WIDTH = 45


@command("search", "TERM", minimum=1, maximum=1)
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output by conditions")
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("--limit", type=int, default=0, help="Max number of search results")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
def search(
    session: Session,
    /,
    arguments: tuple[str, ...],
    filters: tuple[str, ...],
    chosen: str | None,
    limit: int,
    *,
    no_trunc: bool,
) -> None:
    """Search a registry for images."""
    term = arguments[0]
    auth = registry_auth(os.environ, split_domain(term)[0])
    query = {"term": term, "limit": limit or None, "filters": encode_filters(filters)}
    headers = [("X-Registry-Auth", auth)]
    found = session.client.request("GET", "/images/search", query, headers=headers).json()
    found.sort(key=lambda one: -one["star_count"])
    rows = [_row(one, truncate=not no_trunc) for one in found]
    for line in format_rows(rows, COLUMNS, chosen):
        print(line)


def _row(found: dict[str, Any], *, truncate: bool) -> dict[str, str]:
    description = found["description"].replace("\n", " ").replace("\r", " ")
    return {
        "Name": found["name"],
        "Description": ellipsis(description, DESCRIPTION_WIDTH) if truncate else description,
        "StarCount": str(found["star_count"]),
        "IsOfficial": "[OK]" if found["is_official"] else "",
        "IsAutomated": "[OK]" if found["is_automated"] else "",
    }
