"""``cais container prune`` and ``cais image prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cais.cli.filters import encode_filters
from cais.cli.options import command
from cais.spec.units import human_size

if TYPE_CHECKING:
    from cais.cli.session import Session

_WARNING = "WARNING! This will remove {}.\nAre you sure you want to continue?"


@command("prune", "", maximum=0)
@click.option("--filter", "filters", multiple=True, help="Provide filter values")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
def prune_containers(
    session: Session,
    /,
    filters: tuple[str, ...],
    *,
    force: bool,
) -> None:
    """Remove all stopped containers."""
    if not (force or click.confirm(_WARNING.format("all stopped containers"))):
        return
    query = {"filters": encode_filters(filters)}
    answer = session.client.post("/containers/prune", query).json()
    if removed := answer.get("ContainersDeleted"):
        print("Deleted Containers:", *removed, sep="\n", end="\n\n")
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")


@command("prune", "", maximum=0)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all unused images")
@click.option("--filter", "filters", multiple=True, help="Provide filter values")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
def prune_images(
    session: Session,
    /,
    filters: tuple[str, ...],
    *,
    everything: bool,
    force: bool,
) -> None:
    """Remove unused images."""
    what = "all images without a container" if everything else "all dangling images"
    if not (force or click.confirm(_WARNING.format(what))):
        return
    query = {"filters": encode_filters([*filters, f"dangling={str(not everything).lower()}"])}
    answer = session.client.post("/images/prune", query).json()
    if removed := answer.get("ImagesDeleted"):
        print("Deleted Images:")
        print(
            "\n".join(f"{verb.lower()}: {what}" for step in removed for verb, what in step.items())
        )
        print()
    print(f"Total reclaimed space: {human_size(answer['SpaceReclaimed'])}")
