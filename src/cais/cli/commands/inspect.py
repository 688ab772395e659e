"""``cais inspect``, ``container inspect`` and ``image inspect``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from cais.cli.options import command
from cais.cli.template import Template
from cais.client.client import quote
from cais.errors import CaisError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.cli.session import Session

# Kind to path; the order is the one in which a name without a kind is looked up.
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


@command("inspect", "NAME|ID [NAME|ID...]", minimum=1)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes of a container")
@click.option("--type", "kind", help="Only inspect objects of the given type")
def inspect(
    session: Session,
    /,
    arguments: tuple[str, ...],
    chosen: str | None,
    *,
    size: bool,
    kind: str | None,
) -> int:
    """Return low-level information on containers, images, networks or volumes."""
    if kind is not None and kind not in PATHS:
        raise InvalidArgumentError(f'"{kind}" is not a valid value for --type')
    return inspect_each(session, arguments, [kind] if kind else PATHS, chosen, size=size)


@command("inspect", "CONTAINER [CONTAINER...]", minimum=1)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
def inspect_container(
    session: Session, /, arguments: tuple[str, ...], chosen: str | None, *, size: bool
) -> int:
    """Display detailed information on one or more containers."""
    return inspect_each(session, arguments, ["container"], chosen, size=size)


@command("inspect", "IMAGE [IMAGE...]", minimum=1)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
def inspect_image(session: Session, /, arguments: tuple[str, ...], chosen: str | None) -> int:
    """Display detailed information on one or more images."""
    return inspect_each(session, arguments, ["image"], chosen)


def inspect_each(
    session: Session,
    names: Iterable[str],
    kinds: Iterable[str],
    chosen: str | None,
    *,
    size: bool = False,
) -> int:
    """Print the documents of ``names``, and what could not be found; return the exit status."""
    template = Template(chosen) if chosen not in (None, "json") else None
    documents, failures = [], []
    for name in names:
        try:
            documents.append(_find(session, name, kinds, size=size))
        except CaisError as error:
            failures.append(error)
    if template is not None:
        for document in documents:
            print(template.render(document))
    elif chosen == "json":
        print(json.dumps(documents, separators=(",", ":"), ensure_ascii=False))
    else:
        print(json.dumps(documents, indent=4, ensure_ascii=False))
    for failure in failures:
        print(f"Error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _find(session: Session, name: str, kinds: Iterable[str], *, size: bool) -> Any:  # noqa: ANN401
    chosen = list(kinds)
    for kind in chosen:
        query = {"size": True} if size and kind == "container" else None
        try:
            return session.client.get(PATHS[kind].format(quote(name)), query).json()
        except NotFoundError:
            continue
    title = chosen[0] if len(chosen) == 1 else "object"
    raise NotFoundError(f"No such {title}: {name}")
