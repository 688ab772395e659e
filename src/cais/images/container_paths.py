"""Paths as the user of a container means them, looked up in the container's own view.

Docker cleans a path by its letters alone, follows links in all of it but the last component, and
in that one too if the path ends in a slash or in ``/.``. Every look-up is one openat2 with the
container's root as "/" (SECURITY.md B1).

Spec: Docker Engine API 1.51, ``ContainerArchive``, ``X-Docker-Container-Path-Stat``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError, NotFoundError
from cais.images.records import format_time
from cais.linux.paths import filesystem_type, open_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINK_LIMIT = 255
_MISSING = (errno.ENOENT, errno.ESTALE)
_PSEUDO = frozenset(
    {
        *(0x9FA0, 0x62656572, 0x1CD1, 0x19800202),  # proc, sysfs, devpts, mqueue
        *(0x27E0EB, 0x63677270, 0x64626720, 0x74726163),  # cgroup, cgroup2, debugfs, tracefs
        *(0x73636673, 0xCAFE4A11, 0x6E736673, 0xDE5E81E4),  # securityfs, bpf, nsfs, efivarfs
        *(0x6165676C, 0x42494E4D, 0x65735543, 0x62656570),  # pstore, binfmt_misc, fusectl, configfs
    }
)  # statfs(2): what the kernel makes up
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24, stat.S_IFCHR: 1 << 26 | 1 << 21,
}  # fmt: skip
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


class PathNotFoundError(NotFoundError):
    """The container has no such file; the text is Docker's."""

    def __init__(self, path: str, container: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container}")


@dataclass(frozen=True, slots=True)
class ContainerPath:
    """A path as it was asked for.

    Attributes:
        directory: to be followed; cleaned, absolute.
        name: the last component, not followed; empty if all of the path is to be.
        shown: what an archive of it begins with: a name, ``.`` or ``/``.
        text: as it was written, for errors.

    """

    directory: str
    name: str
    shown: str
    text: str

    @property
    def whole(self) -> str:
        """The path with everything to be followed."""
        return posixpath.join(self.directory, self.name)


def parse_container_path(text: str) -> ContainerPath:
    """Read a path of a request.

    Raises:
        InvalidArgumentError: empty, or with a NUL.

    """
    if not text or "\0" in text:
        raise InvalidArgumentError("bad parameter: path cannot be empty")
    clean = posixpath.normpath(f"/{text}")
    clean = f"/{clean.lstrip('/')}"
    directory, name = posixpath.split(clean)
    if text.endswith("/.") or text == ".":
        return ContainerPath(clean, "", ".", text)
    if not name:
        return ContainerPath("/", "", "/", text)
    if text.endswith("/"):
        return ContainerPath(clean, "", name, text)
    return ContainerPath(directory, name, name, text)


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path: an object that was not opened, and the directory it was found in.

    Attributes:
        fd: O_PATH.
        parent_fd: of its directory; of the object itself if all of the path was followed.
        status: of the object.

    """

    fd: int
    parent_fd: int
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether there can be something in it."""
        return stat.S_ISDIR(self.status.st_mode)


@contextlib.contextmanager
def look_up(root_fd: int, path: ContainerPath, container: str) -> Iterator[Found]:
    """Give what is at a path; the descriptors are closed at the end.

    Args:
        root_fd: the container's root. Borrowed.
        path: to look up.
        container: named in the error.

    Raises:
        PathNotFoundError: nothing, or something of a pseudo file system.
        InvalidArgumentError: a part of the path is no directory, or a circle of links.

    """
    with contextlib.ExitStack() as stack:
        try:
            parent_fd = open_in_root(root_fd, path.directory)
            stack.callback(os.close, parent_fd)
            fd = parent_fd
            if path.name or path.text.endswith(("/", "/.")):
                _require_directory(parent_fd)
            if path.name:
                fd = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
                stack.callback(os.close, fd)
        except OSError as exc:
            if exc.errno in _MISSING:
                raise PathNotFoundError(path.text, container) from exc
            if exc.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                text = os.strerror(exc.errno).lower()
                raise InvalidArgumentError(f"lstat {path.whole}: {text}") from exc
            raise
        if is_pseudo(fd) and is_pseudo(_above(fd, parent_fd, stack)):
            raise PathNotFoundError(path.text, container)
        yield Found(fd, parent_fd, os.fstat(fd))


def _require_directory(fd: int) -> None:
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _above(fd: int, parent_fd: int, stack: contextlib.ExitStack) -> int:
    """Return the directory above what was found, for a look at its file system alone."""
    if fd != parent_fd:
        return parent_fd
    above_fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    stack.callback(os.close, above_fd)
    return above_fd


def is_pseudo(fd: int) -> bool:
    """Whether an object is of a file system that the kernel makes up: not for archives."""
    return filesystem_type(fd) & 0xFFFFFFFF in _PSEUDO


def path_stat(root_fd: int, path: ContainerPath, found: Found) -> dict[str, Any]:
    """Return the document of ``X-Docker-Container-Path-Stat``."""
    mode = found.status.st_mode
    is_link = stat.S_ISLNK(mode)
    return {
        "name": path.shown,
        "size": found.status.st_size,
        "mode": go_mode(mode),
        "mtime": format_time(found.status.st_mtime_ns) if found.status.st_mtime_ns else _EPOCH,
        "linkTarget": evaluate(root_fd, path.whole) if is_link else "",
    }


_EPOCH = "1970-01-01T00:00:00Z"


def go_mode(mode: int) -> int:
    """Translate a mode to Go's ``os.FileMode``."""
    bits = sum(go for bit, go in _GO_BITS.items() if mode & bit)
    return stat.S_IMODE(mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0) | bits


def evaluate(root_fd: int, path: str) -> str:
    """Return where a path leads in the tree, all links followed, also to what does not exist.

    For showing only: it may be true no more when it is read.

    Raises:
        InvalidArgumentError: a circle of links.

    """
    done = "/"
    todo = [part for part in reversed(path.split("/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part in (".", ".."):
            done = posixpath.dirname(done) if part == ".." else done
            continue
        target = _read_link(root_fd, done, part)
        if target is None:
            done = posixpath.join(done, part)
            continue
        if (links := links + 1) > _LINK_LIMIT:
            raise InvalidArgumentError(f"too many links in {path}")
        if target.startswith("/"):
            done = "/"
        todo += [part for part in reversed(target.split("/")) if part]
    return done


def _read_link(root_fd: int, directory: str, name: str) -> str | None:
    try:
        parent_fd = open_in_root(root_fd, directory, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return None
    finally:
        os.close(parent_fd)
