"""``cais logs``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cais.cli.human import parse_time
from cais.cli.options import command
from cais.cli.streams import copy_frames, copy_raw
from cais.client.client import quote
from cais.errors import InvalidArgumentError
from cais.spec.durations import parse_duration_ns

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("logs", "CONTAINER", minimum=1, maximum=1)
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option("-n", "--tail", default="all", help="Number of lines to show from the end")
@click.option("--since", help="Show logs since a time (2013-01-02T13:23:37Z) or an age (42m)")
@click.option("--until", help="Show logs before a time or an age")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.option("--details", is_flag=True, help="Show extra details provided to logs")
def logs(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    follow: bool,
    tail: str,
    since: str | None,
    until: str | None,
    timestamps: bool,
    details: bool,
) -> None:
    """Fetch the logs of a container."""
    client, name = session.client, quote(arguments[0])
    document = client.get(f"/containers/{name}/json").json()
    query = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "tail": tail,
        "since": moment(since),
        "until": moment(until),
        "timestamps": timestamps,
        "details": details,
    }
    pieces = client.get(f"/containers/{document['Id']}/logs", query).pieces()
    if document["Config"]["Tty"]:
        copy_raw(pieces)
    else:
        copy_frames(pieces)


def moment(text: str | None) -> str | None:
    """Return a Unix time: of an RFC 3339 time, of an age such as ``42m``, or of one given so.

    Raises:
        InvalidArgumentError: none of these.

    """
    if text is None or text.replace(".", "", 1).isdecimal():
        return text
    try:
        return f"{time.time() - parse_duration_ns(text) / 1e9:.9f}"
    except InvalidArgumentError:
        if seconds := parse_time(text if "T" in text else f"{text}T00:00:00Z"):
            return f"{seconds:.9f}"
        raise InvalidArgumentError(f"invalid value for a time: {text!r}") from None
