"""``cais cp``."""

from __future__ import annotations

import base64
import itertools
import json
import os
import posixpath
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cais.cli import local_archives
from cais.cli.commands.archives import read_pieces
from cais.cli.options import command
from cais.cli.terminal import is_terminal
from cais.client.client import quote
from cais.errors import InvalidArgumentError, NotFoundError
from cais.spec.units import human_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cais.cli.session import Session

_STAT = "x-docker-container-path-stat"
_IS_DIRECTORY, _IS_LINK = 1 << 31, 1 << 27


@command("cp", "CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH", minimum=2, maximum=2)  # fmt: skip  # noqa: E501
@click.option("-a", "--archive", is_flag=True, help="Archive mode (copy all uid/gid information)")
@click.option("-L", "--follow-link", is_flag=True, help="Always follow symbol link in SRC_PATH")
@click.option("-q", "--quiet", is_flag=True, help="Suppress output")
def cp(
    session: Session,
    /,
    arguments: tuple[str, ...],
    *,
    archive: bool,
    follow_link: bool,
    quiet: bool,
) -> None:
    """Copy files/folders between a container and the local filesystem."""
    source, target = map(_parse, arguments)
    if source.container and target.container:
        raise InvalidArgumentError("copying between containers is not supported")
    if not source.container and not target.container:
        raise InvalidArgumentError("must specify at least one container source")
    counter = _Counter()
    if source.container:
        _copy_out(session, source, target.path, counter, follow=follow_link)
    else:
        _copy_in(session, source.path, target, counter, follow=follow_link, archive=archive)
    if not quiet and is_terminal(1) and "-" not in (source.path, target.path):
        size = human_size(counter.bytes, 4)
        print(f"Successfully copied {size} to {arguments[1]}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class _Place:
    """A path of this machine, or of a container."""

    container: str
    path: str

    @property
    def url(self) -> str:
        return f"/containers/{quote(self.container)}/archive"


class _Counter:
    """Counts what passes."""

    def __init__(self) -> None:
        self.bytes = 0

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.bytes += len(piece)
            yield piece


def _parse(text: str) -> _Place:
    container, colon, path = text.partition(":")
    if os.path.isabs(text) or not colon or container.startswith("."):
        return _Place("", text)
    return _Place(container, path)


def _copy_out(
    session: Session, source: _Place, target: str, counter: _Counter, *, follow: bool
) -> None:
    name = posixpath.basename(source.path.rstrip("/"))
    if follow and (found := _describe(session, source)) and found["mode"] & _IS_LINK:
        source = _Place(source.container, _behind(source.path, found["linkTarget"]))
    with session.client.request("GET", source.url, {"path": source.path}) as response:
        facts = _facts(response.fields.get(_STAT, ""))
        pieces = counter.through(response.pieces())
        if target == "-":
            sys.stdout.buffer.writelines(pieces)
            return
        is_directory = bool(facts["mode"] & _IS_DIRECTORY)
        place, new_name = local_archives.destination(target, is_directory=is_directory)
        if facts["name"] != ".":
            new_name = new_name or (name if follow else None)
        local_archives.unpack(pieces, place, facts["name"], new_name)


def _copy_in(
    session: Session, source: str, target: _Place, counter: _Counter, *, follow: bool, archive: bool
) -> None:
    found = _describe(session, target)
    if found and found["mode"] & _IS_LINK:
        target = _Place(target.container, _behind(target.path, found["linkTarget"]))
        found = _describe(session, target)
    is_directory = bool(found and found["mode"] & _IS_DIRECTORY)
    if source == "-":
        if not is_directory:
            where = f"{target.container}:{target.path}"
            raise InvalidArgumentError(f'destination "{where}" must be a directory')
        directory, pieces = target.path, read_pieces(sys.stdin.buffer)
    else:
        local = local_archives.look_at(source, follow=follow)
        directory, shown = _plan(local, target.path, exists=bool(found), is_directory=is_directory)
        pieces = local_archives.pack(local, shown)
    query = {"path": directory, "noOverwriteDirNonDir": True, "copyUIDGID": archive or None}
    session.client.request(
        "PUT", target.url, query, body=counter.through(itertools.chain(pieces))
    ).close()


def _plan(
    source: local_archives.Local, target: str, *, exists: bool, is_directory: bool
) -> tuple[str, str]:
    """Decide where an archive of ``source`` is unpacked, and what it is called in there."""
    if is_directory:
        return target, source.name
    if exists and source.is_directory:
        raise InvalidArgumentError("cannot copy directory")
    if not exists and target.endswith("/") and not source.is_directory:
        raise NotFoundError("no such directory")
    directory, name = posixpath.split(posixpath.normpath(f"/{target}"))
    return directory, name


def _describe(session: Session, place: _Place) -> dict[str, Any] | None:
    try:
        with session.client.request("HEAD", place.url, {"path": place.path}) as response:
            return _facts(response.fields.get(_STAT, ""))
    except NotFoundError:
        return None  # what comes next says whether that matters


def _facts(header: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(base64.b64decode(header))
    return facts


def _behind(path: str, link: str) -> str:
    return link if link.startswith("/") else posixpath.join(posixpath.dirname(path), link)
