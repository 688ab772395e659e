"""``docker import``: one root file system archive becomes an image. (Contract first.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.images.archive import Readable
    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId


def import_rootfs(
    source: Readable,
    store: ImageStore,
    *,
    repository: str = "",
    tag: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    platform: str = "",
) -> ImageId:
    """Make an image of one layer; compressed archives are recognised.

    Args:
        changes: Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL,
            USER, VOLUME, WORKDIR, HEALTHCHECK, SHELL).
        platform: ``os[/arch[/variant]]``; this machine's when empty.

    Raises:
        InvalidArgumentError: a malformed archive, reference, change or platform.

    """
    raise NotImplementedError
