"""``cais pull`` and ``cais push``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from cais.cli.commands.images import split_tag
from cais.cli.daemon_progress import show_transfer
from cais.cli.docker_config import registry_auth
from cais.cli.options import command
from cais.client.client import quote
from cais.errors import InvalidArgumentError
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.cli.session import Session
    from cais.client import Client

_ALL = "tag can't be used with --all-tags/-a"


@command("pull", "NAME[:TAG|@DIGEST]", minimum=1, maximum=1)
@click.option("-a", "--all-tags", is_flag=True, help="Download all tagged images")
@click.option("--platform", help="Set platform if server is multi-platform capable")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
def pull(
    session: Session,
    /,
    arguments: tuple[str, ...],
    platform: str | None,
    *,
    all_tags: bool,
    quiet: bool,
) -> None:
    """Download an image from a registry."""
    reference = parse_reference(arguments[0])
    if all_tags and (reference.tag or reference.digest):
        raise InvalidArgumentError(_ALL)
    if not all_tags and not (reference.tag or reference.digest):
        reference = reference.with_default_tag()
        if not quiet:
            print("Using default tag: latest")
    pull_image(
        session.client, str(reference), platform, shown=not quiet, stream=sys.stdout.fileno()
    )
    print(reference)


@command("push", "NAME[:TAG]", minimum=1, maximum=1)
@click.option("-a", "--all-tags", is_flag=True, help="Push all tags of an image to the repository")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
def push(session: Session, /, arguments: tuple[str, ...], *, all_tags: bool, quiet: bool) -> None:
    """Upload an image to a registry."""
    repository, tag = split_tag(arguments[0])
    if all_tags and tag:
        raise InvalidArgumentError(_ALL)
    reference = parse_reference(arguments[0])
    if not all_tags and not tag:
        tag = "latest"
        if not quiet:
            print("Using default tag: latest")
    answer = session.client.post(
        f"/images/{quote(repository)}/push", {"tag": tag}, headers=_auth(reference.domain)
    )
    show_transfer(answer.documents(), sys.stdout.fileno(), shown=not quiet)
    if quiet:
        print(reference)


def pull_image(
    client: Client, name: str, platform: str | None, *, shown: bool, stream: int
) -> None:
    """Pull an image, showing the progress on the descriptor ``stream``.

    Raises:
        CaisError: what the daemon answers, or the last line of its progress says.

    """
    reference = parse_reference(name)
    query = {
        "fromImage": reference.repository,
        "tag": reference.digest or reference.tag,
        "platform": platform,
    }
    answer = client.post("/images/create", query, headers=_auth(reference.domain))
    show_transfer(answer.documents(), stream, shown=shown)


def _auth(domain: str) -> Sequence[tuple[str, str]]:
    return [("X-Registry-Auth", registry_auth(os.environ, domain))]
