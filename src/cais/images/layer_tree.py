"""The directory a layer is unpacked into, seen together with the layers below it.

An entry ``var/run/x`` belongs where ``var/run`` leads in the image, and that may be a directory
or a symbolic link of a lower layer. Two ways lead to the directory:

- the kernel resolves the path in the upper directory alone (openat2, RESOLVE_IN_ROOT). What it
  finds there is what the whole image shows, because the upper layer hides the lower ones;
- when something is missing there, each component is looked up in every layer, and directories
  that only lower layers have are made in the upper one with the same owner, mode and attributes.

Every step works on descriptors and follows nothing. The tree is private to the unpacker while it
runs; what is hostile is the archive. Descriptors returned are borrowed until the next call.

Spec: OCI image-spec 1.1, layer.md; Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.errors import InvalidArgumentError
from cais.linux.filesystem import remove_tree
from cais.linux.paths import open_in_root
from cais.linux.whiteouts import is_opaque, is_steering_attribute, is_whiteout, make_opaque

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_ACL = "system.posix_acl_default"
"""Of a directory: what is made in it inherits it, so it is set when nothing more is made."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_DESCRIPTORS = 32
_LINK_LIMIT = 40
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class LayerPathError(InvalidArgumentError):
    """An entry's path cannot be what it says."""


class Found(NamedTuple):
    """Where a path was found: the index of the layer, 0 the upper one, and what is there."""

    layer: int
    facts: os.stat_result


class LayerTree:
    """An upper directory to write and lower ones to read; used with ``with``, which closes them.

    Args:
        root_fd: the upper directory; owned from now on.
        open_lowers: gives the lower ones, the nearest first, to be owned; called once and only
            when one of them has to be looked at, which most layers never need. None: none are.

    """

    def __init__(self, root_fd: int, open_lowers: Callable[[], Sequence[int]] | None) -> None:
        self._roots = [root_fd]
        self._open_lowers = open_lowers
        self._parents: dict[str, int] = {}
        self.has_lowers = open_lowers is not None
        self.implicit: list[tuple[str, os.stat_result]] = []
        """Directories made although the archive did not list them, with their lower's facts."""
        self.default_acls: dict[str, bytes] = {}
        """By the path of a directory: what ``set_default_acls`` gives it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        for fd in self._roots:
            os.close(fd)
        self._roots = []

    @property
    def root_fd(self) -> int:
        """The upper directory."""
        return self._roots[0]

    def forget(self) -> None:
        """Drop remembered directories: what a path leads to may have changed."""
        while self._parents:
            os.close(self._parents.popitem()[1])

    def remember(self, path: str, fd: int) -> None:
        """Keep an open directory for entries below it; takes ``fd`` over."""
        if len(self._parents) >= _CACHED_DESCRIPTORS:
            os.close(self._parents.pop(next(iter(self._parents))))
        if (old := self._parents.pop(path, None)) is not None:
            os.close(old)
        self._parents[path] = fd

    def directory(self, path: str) -> int:
        """Return the upper directory that ``path`` leads to, making what is missing.

        Raises:
            LayerPathError: something on the way is no directory.

        """
        if not path:
            return self._roots[0]
        fd = self._parents.get(path)
        if fd is None:
            fd = self._open_directory(path)
            self.remember(path, fd)
        return fd

    def exists_below(self, directory: str, name: str) -> bool:
        """Say whether a lower layer shows ``directory/name``; upper entries are left out."""
        canonical = self._resolve(directory, create=False)
        return canonical is not None and self._find([*canonical, name], first=1) is not None

    def shows_directory(self, path: str) -> bool:
        """Say whether the image shows a directory at ``path``, in whichever layer."""
        return self._resolve(path, create=False) is not None

    def lower_names(self) -> Iterator[str]:
        """Yield the names in the roots of the lower layers, some more than once."""
        for fd in self._layer_fds()[1:]:
            yield from os.listdir(fd)

    def copy_up(self, directory: str, name: str) -> bool:
        """Copy a file that only a lower layer has into the upper one; False: there is none."""
        canonical = self._resolve(directory, create=True)
        assert canonical is not None
        found = self._find([*canonical, name])
        if found is None or found.layer == 0 or stat.S_ISDIR(found.facts.st_mode):
            return False
        how = os.O_RDONLY if stat.S_ISREG(found.facts.st_mode) else os.O_PATH
        source_fd = open_in_root(
            self._layer_fds()[found.layer], "/".join([*canonical, name]), how, follow=False
        )
        try:
            _copy_file(source_fd, found.facts, self.directory("/".join(canonical)), name)
        finally:
            os.close(source_fd)
        return True

    def set_default_acls(self) -> None:
        """Give the directories that are still there what their files must not have inherited."""
        for path, acl in self.default_acls.items():
            parent, _, name = path.rpartition("/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = os.open(name or ".", _DIRECTORY, dir_fd=self.directory(parent))
                try:
                    os.setxattr(fd, DEFAULT_ACL, acl)
                finally:
                    os.close(fd)

    def _open_directory(self, path: str) -> int:
        try:
            return open_in_root(self._roots[0], path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
        canonical = self._resolve(path, create=True)
        assert canonical is not None
        return open_in_root(self._roots[0], "/".join(canonical) or "/", _DIRECTORY)

    def _resolve(self, path: str, *, create: bool) -> list[str] | None:
        """Walk ``path`` through all layers; return it without links, or None where it ends.

        With ``create``, every directory on the way is in the upper layer afterwards.
        """
        done: list[str] = []
        todo = deque(path.split("/"))
        links = 0
        while todo:
            name = todo.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                del done[-1:]
                continue
            found = self._find([*done, name])
            if found and stat.S_ISLNK(found.facts.st_mode):
                links += 1
                if links > _LINK_LIMIT:
                    if not create:
                        return None
                    raise LayerPathError(f"{_shown(path)}: {os.strerror(errno.ELOOP)}")
                target = self._read_link(found.layer, [*done, name])
                if target.startswith("/"):
                    done.clear()
                todo.extendleft(reversed(target.split("/")))
                continue
            if found and not stat.S_ISDIR(found.facts.st_mode):
                if not create:
                    return None
                raise LayerPathError(f"{_shown(path)}: {os.strerror(errno.ENOTDIR)}")
            if found is None and not create:
                return None
            done.append(name)
            if create and (found is None or found.layer > 0):
                self._make_directory(done, found)
        return done

    def _find(self, names: list[str], first: int = 0) -> Found | None:
        """Look a path without links up in the layers from ``first`` on, uppermost first."""
        for index, root_fd in enumerate(self._layer_fds()):
            facts, hides_the_rest = _look(root_fd, names)
            if facts is not None and index >= first:
                return None if is_whiteout(facts) else Found(index, facts)
            if hides_the_rest:
                return None
        return None

    def _make_directory(self, names: list[str], lower: Found | None) -> None:
        parent_fd = open_in_root(self._roots[0], "/".join(names[:-1]) or "/", _DIRECTORY)
        try:
            was_deleted = make_directory(parent_fd, names[-1])
            fd = os.open(names[-1], _DIRECTORY, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        try:
            os.fchmod(fd, 0o755)
            if was_deleted:
                make_opaque(fd)
            elif lower is not None:
                lower_fd = open_in_root(self._roots[lower.layer], "/".join(names), _DIRECTORY)
                try:
                    _copy_attributes(lower_fd, lower.facts, fd)
                    if acl := _default_acl(lower_fd):
                        self.default_acls["/".join(names)] = acl
                finally:
                    os.close(lower_fd)
                self.implicit.append(("/".join(names), lower.facts))
        finally:
            os.close(fd)

    def _read_link(self, layer: int, names: list[str]) -> str:
        parent_fd = open_in_root(self._roots[layer], "/".join(names[:-1]) or "/", _DIRECTORY)
        try:
            return os.readlink(names[-1], dir_fd=parent_fd)
        finally:
            os.close(parent_fd)

    def _layer_fds(self) -> list[int]:
        if self._open_lowers is not None:
            self._roots += self._open_lowers()
            self._open_lowers = None
        return self._roots


def make_directory(parent_fd: int, name: str, mode: int = 0o700) -> bool:
    """Make a directory, also in the place of a whiteout; say whether one was there."""
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
    except FileExistsError:
        facts = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if not is_whiteout(facts):
            raise
        remove_tree(parent_fd, name)
        os.mkdir(name, mode, dir_fd=parent_fd)
        return True
    return False


def set_mode_at(parent_fd: int, name: str, mode: int) -> None:
    """Set the mode of a node that must not be opened and that the caller has just made.

    It is known to be no symbolic link, which fchmodat(2) would follow (fchmodat2 is Linux 6.6).
    """
    os.chmod(name, mode, dir_fd=parent_fd)


def _look(root_fd: int, names: list[str]) -> tuple[os.stat_result | None, bool]:
    """Look a path up in one layer; also say whether it hides the path in the layers below."""
    fd = os.dup(root_fd)
    is_final = False
    try:
        for index, name in enumerate(names):
            try:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return None, is_final
            if index == len(names) - 1:
                return facts, is_final
            if not stat.S_ISDIR(facts.st_mode):
                return None, True
            child_fd = os.open(name, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child_fd
            is_final = is_final or is_opaque(fd)
        return os.fstat(fd), is_final
    finally:
        os.close(fd)


def _copy_attributes(source_fd: int, facts: os.stat_result, target_fd: int) -> None:
    os.fchown(target_fd, facts.st_uid, facts.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(facts.st_mode))
    for name in os.listxattr(source_fd):
        if not is_steering_attribute(name) and name != DEFAULT_ACL:
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))


def _default_acl(directory_fd: int) -> bytes:
    try:
        return os.getxattr(directory_fd, DEFAULT_ACL)
    except OSError as exc:
        if exc.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return b""
        raise


def _copy_file(source_fd: int, facts: os.stat_result, parent_fd: int, name: str) -> None:
    """Copy one file that is no directory, with its attributes and time.

    A regular one is open for reading, any other one by O_PATH.
    """
    if stat.S_ISREG(facts.st_mode):
        _copy_regular(source_fd, facts, parent_fd, name)
    elif stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink("", dir_fd=source_fd), name, dir_fd=parent_fd)
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=parent_fd, follow_symlinks=False)
    else:
        os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=parent_fd)
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=parent_fd, follow_symlinks=False)
        set_mode_at(parent_fd, name, stat.S_IMODE(facts.st_mode))
    times = (facts.st_atime_ns, facts.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _copy_regular(source_fd: int, facts: os.stat_result, parent_fd: int, name: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    writer_fd = os.open(name, flags, 0o600, dir_fd=parent_fd)
    try:
        while os.sendfile(writer_fd, source_fd, None, 1 << 30):
            pass
        _copy_attributes(source_fd, facts, writer_fd)
    finally:
        os.close(writer_fd)


def _shown(path: str) -> str:
    return repr(path[:200])
