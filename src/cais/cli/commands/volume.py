"""``cais volume``."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import click

from cais.cli.commands.inspect import inspect_each
from cais.cli.creation import read_pairs
from cais.cli.each import for_each
from cais.cli.filters import encode_filters
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.client.client import quote

if TYPE_CHECKING:
    from cais.cli.session import Session

COLUMNS = {"Driver": "DRIVER", "Name": "VOLUME NAME"}


@command("create", "[VOLUME]", maximum=1)
@click.option("-d", "--driver", default="local", help="Specify volume driver name")
@click.option("--label", multiple=True, help="Set metadata for a volume")
@click.option("-o", "--opt", multiple=True, help="Set driver specific options")
def create(
    session: Session,
    /,
    arguments: tuple[str, ...],
    driver: str,
    label: tuple[str, ...],
    opt: tuple[str, ...],
) -> None:
    """Create a volume."""
    body = {
        "Name": arguments[0] if arguments else "",
        "Driver": driver,
        "Labels": read_pairs(label, ()),
        "DriverOpts": read_pairs(opt, ()),
    }
    print(session.client.post("/volumes/create", None, body).json()["Name"])


@command("ls", "", maximum=0)
@click.option("-f", "--filter", "filters", multiple=True, help="Provide filter values")
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("-q", "--quiet", is_flag=True, help="Only display volume names")
def ls(
    session: Session,
    /,
    filters: tuple[str, ...],
    chosen: str | None,
    *,
    quiet: bool,
) -> None:
    """List volumes."""
    answer = session.client.get("/volumes", {"filters": encode_filters(filters)}).json()
    rows = [
        {"Driver": each["Driver"], "Name": each["Name"], "Mountpoint": each["Mountpoint"]}
        for each in answer["Volumes"] or ()
    ]
    for line in format_rows(
        sorted(rows, key=itemgetter("Name")), COLUMNS, "{{.Name}}" if quiet else chosen
    ):
        print(line)


@command("inspect", "VOLUME [VOLUME...]", minimum=1)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
def inspect(session: Session, /, arguments: tuple[str, ...], chosen: str | None) -> int:
    """Display detailed information on one or more volumes."""
    return inspect_each(session, arguments, ["volume"], chosen)


@command("rm", "VOLUME [VOLUME...]", minimum=1)
@click.option("-f", "--force", is_flag=True, help="Force the removal of one or more volumes")
def rm(session: Session, /, arguments: tuple[str, ...], *, force: bool) -> int:
    """Remove one or more volumes."""
    client = session.client
    query = {"force": force}
    return for_each(arguments, lambda name: client.delete(f"/volumes/{quote(name)}", query).close())
