"""``cais image bootstrap``: a first image, made of this machine's packages, without a registry."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cais.cli.commands.archives import read_pieces
from cais.cli.daemon_progress import print_progress
from cais.cli.options import command
from cais.cli.progress import counted, spinning
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from typing import BinaryIO

    from cais.cli.session import Session


@command("bootstrap", "busybox|debian[:SUITE]", minimum=1, maximum=1)
def bootstrap(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Make a base image without a registry: busybox, or a minimal Debian (with mmdebstrap)."""
    client = session.client  # first, so that a daemon that cannot start costs no build
    with contextlib.closing(_build(arguments[0])) as archive:
        size = os.fstat(archive.fileno()).st_size
        pieces = counted(read_pieces(archive), "Loading", size)
        answer = client.post("/images/load", {"quiet": True}, body=pieces)
        print_progress(answer.documents())


def _build(name: str) -> BinaryIO:
    # Imported late: with what it imports, this room costs more than most commands take.
    from cais.images import bootstrap as images

    distribution, separator, suite = name.partition(":")
    if name == "busybox":
        return images.build_busybox_image()
    if distribution == "debian" and bool(suite) == bool(separator):
        with spinning(f"Installing a minimal Debian {suite or 'stable'}"):
            return images.build_debian_image(suite or "stable")
    raise InvalidArgumentError(f"cannot bootstrap {name!r}: there are busybox and debian[:SUITE]")
