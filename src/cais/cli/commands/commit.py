"""``cais commit``, ``diff`` and ``export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cais.cli.commands.archives import write_archive
from cais.cli.commands.images import split_tag
from cais.cli.options import command
from cais.cli.terminal import is_terminal
from cais.client.client import quote
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.cli.session import Session

_KINDS = ("C", "A", "D")


@command("commit", "CONTAINER [REPOSITORY[:TAG]]", minimum=1, maximum=2)
@click.option("-a", "--author", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")')
@click.option("-c", "--change", multiple=True, help="Apply Dockerfile instruction to the image")
@click.option("-m", "--message", help="Commit message")
@click.option("-p", "--pause/--no-pause", default=True, help="Pause container during commit")
def commit(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    author: str | None,
    change: tuple[str, ...],
    message: str | None,
    pause: bool,
) -> None:
    """Create a new image from a container's changes."""
    repository, tag = split_tag(arguments[1]) if len(arguments) > 1 else (None, None)
    query = {
        "container": arguments[0],
        "repo": repository,
        "tag": tag,
        "author": author,
        "comment": message,
        "changes": list(change),
        "pause": pause,
    }
    print(session.client.post("/commit", query).json()["Id"])


@command("diff", "CONTAINER", minimum=1, maximum=1)
def diff(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Inspect changes to files or directories on a container's filesystem."""
    if not arguments[0]:
        raise InvalidArgumentError("container name cannot be empty")
    changes = session.client.get(f"/containers/{quote(arguments[0])}/changes").json()
    for change in changes or ():
        print(_KINDS[change["Kind"]], change["Path"])


@command("export", "CONTAINER", minimum=1, maximum=1)
@click.option("-o", "--output", "path", help="Write to a file, instead of STDOUT")
def export(session: Session, /, arguments: tuple[str, ...], path: str | None) -> None:
    """Export a container's filesystem as a tar archive."""
    if path is None and is_terminal(1):
        raise InvalidArgumentError(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        )
    pieces = session.client.get(f"/containers/{quote(arguments[0])}/export").pieces()
    write_archive(pieces, path, "Exporting")
