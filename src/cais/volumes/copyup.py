"""Fill a new volume with what the image has at its destination, without mounting anything."""

from collections.abc import Sequence


def copy_merged(lower_dirs: Sequence[str], path_inside: str, target: str) -> None:
    """Copy the merged view of ``path_inside`` over overlay layers into an empty directory.

    Args:
        lower_dirs: layer directories, the topmost first.
        path_inside: absolute path in the image; symlinks resolve inside the merged tree.
        target: the volume's ``_data``; untouched unless empty.

    """
    raise NotImplementedError
