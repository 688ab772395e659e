"""``cais container|image|network|volume|system prune``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cais.cli.confirmation import is_confirmed
from cais.cli.filters import encode_filters
from cais.cli.options import command
from cais.errors import InvalidArgumentError
from cais.spec.units import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cais.cli.session import Session

_QUESTION = "Are you sure you want to continue?"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of object that can be pruned."""

    path: str
    title: str
    field: str
    """Of the answer: what was deleted."""


_CONTAINERS = _Kind("/containers/prune", "Deleted Containers:", "ContainersDeleted")
_NETWORKS = _Kind("/networks/prune", "Deleted Networks:", "NetworksDeleted")
_VOLUMES = _Kind("/volumes/prune", "Deleted Volumes:", "VolumesDeleted")
_IMAGES = _Kind("/images/prune", "Deleted Images:", "ImagesDeleted")
_BUILDS = _Kind("/build/prune", "Deleted build cache objects:", "CachesDeleted")


def _options(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options that every prune has."""
    function = click.option("--filter", "filters", multiple=True, help="Provide filter values")(
        function
    )
    return click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")(
        function
    )


@command("prune", "", maximum=0)
@_options
def prune_containers(session: Session, /, filters: tuple[str, ...], *, force: bool) -> None:
    """Remove all stopped containers."""
    if force or _agrees("all stopped containers"):
        _report(_prune(session, _CONTAINERS, filters))


@command("prune", "", maximum=0)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all unused images")
@_options
def prune_images(
    session: Session, /, filters: tuple[str, ...], *, everything: bool, force: bool
) -> None:
    """Remove unused images."""
    what = "all dangling images"
    if everything:
        what = "all images without at least one container associated to them"
    if force or _agrees(what):
        _report(_prune(session, _IMAGES, _image_filters(filters, everything=everything)))


@command("prune", "", maximum=0)
@_options
def prune_networks(session: Session, /, filters: tuple[str, ...], *, force: bool) -> None:
    """Remove all unused networks."""
    if force or _agrees("all custom networks not used by at least one container"):
        _prune(session, _NETWORKS, filters)


@command("prune", "", maximum=0)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Remove all unused volumes, also named ones"
)
@_options
def prune_volumes(
    session: Session, /, filters: tuple[str, ...], *, everything: bool, force: bool
) -> None:
    """Remove unused local volumes."""
    what = "all" if everything else "anonymous"
    if force or _agrees(f"{what} local volumes not used by at least one container"):
        _report(_prune(session, _VOLUMES, [*filters, *(["all=true"] if everything else [])]))


@command("prune", "", maximum=0)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove all unused images")
@click.option("--volumes", is_flag=True, help="Prune anonymous volumes")
@_options
def prune_system(
    session: Session,
    /,
    filters: tuple[str, ...],
    *,
    everything: bool,
    volumes: bool,
    force: bool,
) -> None:
    """Remove unused data."""
    if volumes and any(word.startswith("until") for word in filters):
        raise InvalidArgumentError('ERROR: The "until" filter is not supported with "--volumes"')
    if not force:
        print(*_warning(filters, everything=everything, volumes=volumes), sep="\n", end="\n\n")
        if not is_confirmed(_QUESTION):
            return
    freed = _prune(session, _CONTAINERS, filters)
    freed += _prune(session, _NETWORKS, filters)
    if volumes:
        freed += _prune(session, _VOLUMES, filters)
    freed += _prune(session, _IMAGES, _image_filters(filters, everything=everything))
    freed += _prune(session, _BUILDS, filters, {"all": everything})
    _report(freed)


def _agrees(what: str) -> bool:
    return is_confirmed(f"WARNING! This will remove {what}.\n{_QUESTION}")


def _warning(filters: Sequence[str], *, everything: bool, volumes: bool) -> Iterator[str]:
    yield "WARNING! This will remove:"
    yield "  - all stopped containers"
    yield "  - all networks not used by at least one container"
    if volumes:
        yield "  - all anonymous volumes not used by at least one container"
    if everything:
        yield "  - all images without at least one container associated to them"
        yield "  - all build cache"
    else:
        yield "  - all dangling images"
        yield "  - unused build cache"
    if filters:
        yield ""
        yield "  Items to be pruned will be filtered with:"
        yield from (f"  - {word}" for word in filters)


def _image_filters(filters: Sequence[str], *, everything: bool) -> list[str]:
    return [*filters, f"dangling={str(not everything).lower()}"]


def _prune(
    session: Session, kind: _Kind, filters: Sequence[str], query: dict[str, Any] | None = None
) -> int:
    """Prune one kind, say what went, and return the bytes that came free."""
    query = {**(query or {}), "filters": encode_filters(filters)}
    answer = session.client.post(kind.path, query).json()
    if removed := answer.get(kind.field):
        print(kind.title, *map(_line, removed), sep="\n", end="\n\n")
    freed: int = answer.get("SpaceReclaimed", 0)
    return freed


def _line(removed: str | dict[str, str]) -> str:
    if isinstance(removed, str):
        return removed
    return "\n".join(f"{verb.lower()}: {what}" for verb, what in removed.items())


def _report(freed: int) -> None:
    print(f"Total reclaimed space: {human_size(freed)}")
