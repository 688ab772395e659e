"""``cais start``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from cais.cli.container_streams import exit_status, open_attachment, proxied_signals, pump
from cais.cli.each import for_each
from cais.cli.options import command
from cais.cli.streams import Detached
from cais.client.client import quote
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.cli.session import Session
    from cais.client import Client


@command("start", "CONTAINER [CONTAINER...]", minimum=1)
@click.option("-a", "--attach", is_flag=True, help="Attach STDOUT/STDERR and forward signals")
@click.option("-i", "--interactive", is_flag=True, help="Attach container's STDIN")
@click.option("--detach-keys", help="Override the key sequence for detaching")
def start(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    attach: bool,
    interactive: bool,
    detach_keys: str | None,
) -> int:
    """Start one or more stopped containers."""
    client = session.client
    if not (attach or interactive):
        return for_each(arguments, lambda name: _start(client, name))
    if len(arguments) > 1:
        raise InvalidArgumentError("you cannot start and attach multiple containers at once")
    try:
        return _start_attached(client, arguments[0], interactive=interactive, keys=detach_keys)
    except Detached:
        return 0


def _start(client: Client, container: str) -> None:
    client.post(f"/containers/{quote(container)}/start").close()


def _start_attached(client: Client, container: str, *, interactive: bool, keys: str | None) -> int:
    document = client.get(f"/containers/{quote(container)}/json").json()
    identifier, terminal = document["Id"], document["Config"]["Tty"]
    streams = {"stdout", "stderr"}
    if interactive and document["Config"]["OpenStdin"]:
        streams.add("stdin")
    with contextlib.ExitStack() as stack:
        if not terminal:
            stack.enter_context(proxied_signals(client, identifier))
        attachment = open_attachment(client, identifier, streams, keys)
        stack.enter_context(attachment)
        removes = document["HostConfig"]["AutoRemove"]
        condition = "removed" if removes else "next-exit"
        waiting = client.post(f"/containers/{identifier}/wait", {"condition": condition})
        stack.enter_context(waiting)
        _start(client, identifier)
        pump(
            client,
            attachment,
            f"/containers/{identifier}",
            terminal=terminal,
            stdin="stdin" in streams,
            detach_keys=keys,
        )
        return exit_status(waiting)
