"""``cais events``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from cais.cli.commands.logs import moment
from cais.cli.filters import encode_filters
from cais.cli.options import command
from cais.cli.template import Template

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("events", "", maximum=0)
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output by conditions")
@click.option("--format", "chosen", help="Format output: json or a Go template")
@click.option("--since", help="Show all events since a time or an age")
@click.option("--until", help="Stream events until a time or an age")
def events(
    session: Session,
    /,
    filters: tuple[str, ...],
    chosen: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Get real time events from the server."""
    template = Template(chosen) if chosen not in (None, "json") else None
    query = {"since": moment(since), "until": moment(until), "filters": encode_filters(filters)}
    for event in session.client.get("/events", query).documents():
        if template is not None:
            print(template.render(event), flush=True)
        elif chosen == "json":
            print(json.dumps(event, separators=(",", ":")), flush=True)
        else:
            print(_line(event), flush=True)


def _line(event: dict[str, Any]) -> str:
    seconds, nanoseconds = divmod(event["timeNano"], 10**9)
    zone = time.strftime("%z", time.localtime(seconds))
    moment_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    attributes = event["Actor"]["Attributes"] or {}
    details = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    line = (
        f"{moment_text}.{nanoseconds:09d}{zone[:3]}:{zone[3:]} "
        f"{event['Type']} {event['Action']} {event['Actor']['ID']}"
    )
    return f"{line} ({details})" if details else line
