"""Write everything: write(2) may take less than it is given."""

from __future__ import annotations

import os


def write_all(fd: int, content: bytes) -> None:
    """Write all of ``content`` to a blocking descriptor.

    Raises:
        OSError: as write(2); what was taken by then stays written.

    """
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
