"""``cais image bootstrap``: a first image, made of this machine's packages, without a registry."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from cais.cli.commands.archives import read_pieces
from cais.cli.daemon_progress import print_progress
from cais.cli.options import command
from cais.cli.progress import counted, spinning

if TYPE_CHECKING:
    from typing import BinaryIO

    from cais.cli.session import Session
    from cais.images.bootstrap.lock import Lock


@command("bootstrap", "busybox|debian[:SUITE]|ubuntu:SUITE", minimum=1, maximum=1)
@click.option(
    "--lock",
    metavar="FILE",
    default="",
    help="Install exactly the packages FILE names; write it if there is none",
)
@click.option("--mirror", metavar="URL", default="", help="Where to get packages from")
def bootstrap(session: Session, /, arguments: tuple[str, ...], lock: str, mirror: str) -> None:
    """Make a base image without a registry, of signed packages (busybox, Debian, Ubuntu)."""
    client = session.client  # first, so that a daemon that cannot start costs no build
    with contextlib.closing(_build(arguments[0], lock, mirror)) as archive:
        size = os.fstat(archive.fileno()).st_size
        pieces = counted(read_pieces(archive), "Loading", size)
        answer = client.post("/images/load", {"quiet": True}, body=pieces)
        print_progress(answer.documents())


def _build(name: str, lock_path: str, mirror: str) -> BinaryIO:
    # Imported late: with what it imports, this room costs more than most commands take.
    from cais.images.bootstrap import busybox, lock

    if name == "busybox" and not lock_path:
        return busybox.build_busybox_image()
    wanted = lock.load_lock(lock_path) if lock_path else None
    archive, made = _build_locked(name, wanted, mirror)
    if lock_path and wanted is None:
        lock.save_lock(made, lock_path)
    return archive


def _build_locked(name: str, wanted: Lock | None, mirror: str) -> tuple[BinaryIO, Lock]:
    from cais.images.bootstrap import busybox, debian

    if name == "busybox":
        return busybox.build_locked_busybox_image(wanted)
    source = debian.find_source(name, mirror)
    with spinning(f"Installing a minimal {source.image}"):
        return debian.build_image(source, wanted)
