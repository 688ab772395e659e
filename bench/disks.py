"""A disk of its own for each daemon: ext4 with a journal, as hosts have it.

On an ext4 without a journal the kernel looks past every inode that was deleted in the last minutes
whenever it makes a file (``recently_deleted``, fs/ext4/ialloc.c). Rows that remove an image before
each turn would measure what they themselves removed, more of it each turn, and whose it was by
chance.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 32 << 30  # of which only what is written takes room


@contextmanager
def disk_at(directory: Path) -> Iterator[None]:
    """Mount a new disk on a directory that exists; it is gone at the end of the block. Root."""
    image = directory.with_suffix(".disk")
    with image.open("wb") as file:
        file.truncate(_BYTES)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, directory], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", directory], check=True)
    finally:
        image.unlink()
