"""``cais load``, ``save`` and ``import``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from cais.cli.commands.images import split_tag
from cais.cli.daemon_progress import checked, print_progress
from cais.cli.options import command
from cais.cli.progress import counted
from cais.cli.terminal import is_terminal
from cais.errors import InvalidArgumentError, NotFoundError
from cais.spec.platform import encode_platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from cais.cli.session import Session

READ_BYTES = 1 << 18


@command("load", "", maximum=0)
@click.option("-i", "--input", "path", help="Read from tar archive file, instead of STDIN")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the load output")
@click.option("--platform", multiple=True, help="Load only the given platform(s)")
def load(
    session: Session,
    /,
    path: str | None,
    *,
    quiet: bool,
    platform: tuple[str, ...],
) -> None:
    """Load an image from a tar archive or STDIN."""
    if path is None and is_terminal(0):
        raise InvalidArgumentError("requested load from stdin, but stdin is empty")
    with _open(path) as archive:
        pieces = counted(read_pieces(archive), "Loading", _size_of(archive), shown=not quiet)
        query = {"quiet": True, "platform": [encode_platform(text) for text in platform]}
        answer = session.client.post("/images/load", query, body=pieces)
        print_progress(answer.documents())


@command("import", "file|URL|- [REPOSITORY[:TAG]]", minimum=1, maximum=2)
@click.option("-c", "--change", multiple=True, help="Apply Dockerfile instruction to the image")
@click.option("-m", "--message", help="Set commit message for imported image")
@click.option("--platform", help="Set platform if server is multi-platform capable")
def import_(
    session: Session,
    /,
    arguments: tuple[str, ...],
    change: tuple[str, ...],
    message: str | None,
    platform: str | None,
) -> None:
    """Import the contents from a tarball to create a filesystem image."""
    source, reference = arguments[0], arguments[1] if len(arguments) > 1 else None
    wanted: dict[str, Any] = {"changes": change, "message": message, "platform": platform}
    if "://" in source:
        print(import_image(session, None, reference, source=source, **wanted))
        return
    with _open(None if source == "-" else source) as archive:
        pieces = counted(read_pieces(archive), "Importing", _size_of(archive))
        print(import_image(session, pieces, reference, **wanted))


def import_image(
    session: Session,
    pieces: Iterable[bytes] | None,
    reference: str | None,
    *,
    changes: Iterable[str] = (),
    message: str | None = None,
    platform: str | None = None,
    source: str = "-",
) -> str:
    """Make an image of a root filesystem's tar archive, and return its id.

    Args:
        pieces: the archive; None: the daemon fetches it from the URL ``source``.

    """
    repository, tag = split_tag(reference) if reference else (None, None)
    query = {
        "fromSrc": source,
        "repo": repository,
        "tag": tag,
        "message": message,
        "changes": list(changes),
        "platform": platform,
    }
    answer = session.client.post("/images/create", query, body=pieces)
    identifier = ""
    for document in checked(answer.documents()):
        identifier = document.get("status", identifier)
    return identifier


@command("save", "IMAGE [IMAGE...]", minimum=1)
@click.option("-o", "--output", "path", help="Write to a file, instead of STDOUT")
@click.option("--platform", help="Save only the given platform")
def save(
    session: Session, /, arguments: tuple[str, ...], path: str | None, platform: str | None
) -> None:
    """Save one or more images to a tar archive (streamed to STDOUT by default)."""
    if path is None and is_terminal(1):
        raise InvalidArgumentError(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        )
    query = {
        "names": list(arguments),
        "platform": encode_platform(platform) if platform else None,
    }
    write_archive(session.client.get("/images/get", query).pieces(), path, "Saving")


def write_archive(pieces: Iterable[bytes], path: str | None, title: str) -> None:
    """Write to a file, which is there only when it is complete; None: to standard output."""
    if path is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    partial = f"{path}.partial-{os.getpid()}"
    try:
        with open(partial, "xb") as file:
            file.writelines(counted(pieces, title))
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def _open(path: str | None) -> BinaryIO:
    if path is None:
        return os.fdopen(os.dup(0), "rb")
    try:
        return open(path, "rb")
    except OSError as error:
        raise NotFoundError(f"open {path}: {(error.strerror or '').lower()}") from error


def _size_of(file: BinaryIO) -> int | None:
    return os.fstat(file.fileno()).st_size or None


def read_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file."""
    return iter(lambda: file.read(READ_BYTES), b"")
