"""``cais ps``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cais.cli.filters import encode_filters
from cais.cli.human import ellipsis, format_age
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.spec.units import human_size

if TYPE_CHECKING:
    from cais.cli.session import Session

COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
COMMAND_WIDTH = 20


@command("ps", "", maximum=0)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all containers")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output by conditions")
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("-n", "--last", type=int, default=-1, help="Show n last created containers")
@click.option("-l", "--latest", is_flag=True, help="Show the latest created container")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-q", "--quiet", is_flag=True, help="Only display container IDs")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
def ps(
    session: Session,
    /,
    *,
    everything: bool,
    filters: tuple[str, ...],
    chosen: str | None,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers."""
    query = {
        "all": everything or latest or last > 0,
        "limit": 1 if latest else (last if last > 0 else None),
        "size": size,
        "filters": encode_filters(filters),
    }
    rows = [
        row_of(each, truncate=not no_trunc)
        for each in session.client.get("/containers/json", query).json()
    ]
    columns = {**COLUMNS, "Size": "SIZE"} if size else COLUMNS
    for line in format_rows(rows, columns, "{{.ID}}" if quiet else chosen):
        print(line)


def row_of(item: dict[str, Any], *, truncate: bool) -> dict[str, str]:
    """Return the fields of one container's line."""
    command_line = item["Command"]
    if truncate:
        command_line = ellipsis(command_line, COMMAND_WIDTH)
    own, whole = (human_size(item.get(field) or 0, 3) for field in ("SizeRw", "SizeRootFs"))
    return {
        "ID": item["Id"][:12] if truncate else item["Id"],
        "Image": item["Image"],
        "Command": json.dumps(command_line, ensure_ascii=False),
        "RunningFor": format_age(item["Created"]),
        "CreatedAt": str(item["Created"]),
        "Status": item["Status"],
        "State": item["State"],
        "Ports": ", ".join(_port(port) for port in item.get("Ports") or ()),
        "Names": ",".join(name.removeprefix("/") for name in item["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in (item["Labels"] or {}).items()),
        "Mounts": ",".join(mount.get("Name") or mount["Source"] for mount in item["Mounts"]),
        "Networks": ",".join((item.get("NetworkSettings") or {}).get("Networks") or {}),
        "Size": f"{own} (virtual {whole})",
    }


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    if not port.get("PublicPort"):
        return inside
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}"
