"""``cais images``, ``rmi``, ``tag`` and ``pull``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cais.cli.each import for_each
from cais.cli.filters import encode_filters
from cais.cli.human import format_age, short_id
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.client.client import quote
from cais.spec.units import human_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.cli.session import Session

COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}
NONE = "<none>"


@command("images", "[REPOSITORY[:TAG]]", maximum=1)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all images")
@click.option("--digests", is_flag=True, help="Show digests")
@click.option("-f", "--filter", "filters", multiple=True, help="Filter output by conditions")
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-q", "--quiet", is_flag=True, help="Only show image IDs")
def images(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    everything: bool,
    digests: bool,
    filters: tuple[str, ...],
    chosen: str | None,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List images."""
    chosen_filters = [*filters, *(f"reference={name}" for name in arguments)]
    query = {"all": everything, "digests": digests, "filters": encode_filters(chosen_filters)}
    documents = session.client.get("/images/json", query).json()
    rows = [row for each in documents for row in rows_of(each, truncate=not no_trunc)]
    columns = COLUMNS
    if digests:
        columns = {"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", **COLUMNS}
    for line in format_rows(rows, columns, "{{.ID}}" if quiet else chosen):
        print(line)


def rows_of(image: dict[str, Any], *, truncate: bool) -> Iterator[dict[str, str]]:
    """Yield a row for each tag, one with ``<none>`` for an image without."""
    digests = {
        name: digest
        for name, _, digest in (text.partition("@") for text in image.get("RepoDigests") or ())
    }
    for reference in image.get("RepoTags") or [f"{next(iter(digests), NONE)}:{NONE}"]:
        repository, _, tag = reference.rpartition(":")
        yield {
            "Repository": repository,
            "Tag": tag,
            "ID": short_id(image["Id"]) if truncate else image["Id"],
            "Digest": digests.get(repository, NONE),
            "CreatedSince": format_age(image["Created"]),
            "CreatedAt": str(image["Created"]),
            "Size": human_size(image["Size"], 3),
            "Containers": "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
        }


@command("rmi", "IMAGE [IMAGE...]", minimum=1)
@click.option("-f", "--force", is_flag=True, help="Force removal of the image")
@click.option("--no-prune", is_flag=True, help="Do not delete untagged parents")
def rmi(session: Session, /, arguments: tuple[str, ...], *, force: bool, no_prune: bool) -> int:
    """Remove one or more images."""
    client = session.client

    def remove(name: str) -> str:
        query = {"force": force, "noprune": no_prune}
        steps = client.delete(f"/images/{quote(name)}", query).json()
        return "\n".join(f"{verb}: {what}" for step in steps for verb, what in step.items())

    return for_each(arguments, remove)


@command("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", minimum=2, maximum=2)
def tag(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE."""
    source, target = arguments
    repository, name = split_tag(target)
    query = {"repo": repository, "tag": name}
    session.client.post(f"/images/{quote(source)}/tag", query).close()


def split_tag(reference: str) -> tuple[str, str | None]:
    """Return a reference's repository and its tag, None if it names none."""
    head, separator, tail = reference.rpartition(":")
    if separator and "/" not in tail:
        return head, tail
    return reference, None
