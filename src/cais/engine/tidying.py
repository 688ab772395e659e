"""What a container that has ended gives back: a thousand of them shall cost a few megabytes.

Everything here comes back at the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from cais.engine.shared_memory import remove_bundle
from cais.errors import CaisError

if TYPE_CHECKING:
    from cais.engine.core import Core

log = logging.getLogger(__name__)


def tidy(core: Core, container_id: str) -> None:
    """Free an ended container's bundle, and its directories that nothing was written to.

    A removed or unknown container is left as it is. Blocks.
    """
    try:
        core.snapshots.trim(container_id)
    except (CaisError, OSError) as exc:
        log.debug("container %s keeps its directories: %s", container_id, exc)
    remove_bundle(core.paths.bundle(container_id))
    path = core.paths.log(container_id)
    with contextlib.suppress(OSError):  # no log, or a rotated one beside it
        if os.stat(path).st_size == 0:  # noqa: PTH116 - every container at every start of the daemon
            os.unlink(path)  # noqa: PTH108
        os.rmdir(core.paths.container(container_id))  # noqa: PTH106
