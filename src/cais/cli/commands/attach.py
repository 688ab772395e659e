"""``cais attach``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from cais.cli.container_streams import (
    exit_status,
    open_attachment,
    proxied_signals,
    pump,
    require_terminal,
)
from cais.cli.options import command
from cais.client.client import quote
from cais.errors import ConflictError

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("attach", "CONTAINER", minimum=1, maximum=1)
@click.option("--detach-keys", help="Override the key sequence for detaching")
@click.option("--no-stdin", is_flag=True, help="Do not attach STDIN")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Proxy all received signals")
def attach(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    detach_keys: str | None,
    no_stdin: bool,
    sig_proxy: bool,
) -> int:
    """Attach local standard input, output, and error streams to a running container."""
    client, container = session.client, arguments[0]
    document = client.get(f"/containers/{quote(container)}/json").json()
    if not document["State"]["Running"]:
        raise ConflictError("cannot attach to a stopped container, start it first")
    if document["State"]["Paused"]:
        raise ConflictError("cannot attach to a paused container, unpause it first")
    terminal = document["Config"]["Tty"]
    streams = {"stdout", "stderr"}
    if document["Config"]["OpenStdin"] and not no_stdin:
        streams.add("stdin")
        if terminal:
            require_terminal()
    with contextlib.ExitStack() as stack:
        if sig_proxy and not terminal:
            stack.enter_context(proxied_signals(client, container))
        attachment = open_attachment(client, container, streams, detach_keys)
        stack.enter_context(attachment)
        # Asked for before the output ends, so that a removal cannot come between.
        waiting = client.post(f"/containers/{document['Id']}/wait")
        stack.enter_context(waiting)
        pump(
            client,
            attachment,
            f"/containers/{document['Id']}",
            terminal=terminal,
            stdin="stdin" in streams,
            detach_keys=detach_keys,
        )
        return exit_status(waiting)
