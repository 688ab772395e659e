"""Random directory trees with everything a file system can hold, and what is in one, to compare.

The same seed gives the same tree. ``RandomTree`` also changes a tree at random, in place, as a
program in a container would.
"""

import hashlib
import os
import random
import shutil
import stat
import struct
from collections.abc import Callable

_NAMES = (
    *("a", "b", "bin", "etc", "file", "lib", "x", "README", ".hidden", "with space", "tab\there"),
    *("new\nline", "quote\"'", "back\\slash", "-dash", "percent%41", "equals=", "dots...", ".whiz"),
    *("\u00e4\u00f6", "\u65e5\u672c\u8a9e", os.fsdecode(b"\xff\xfe-bytes"), os.fsdecode(b"\xc3")),
    *("n" * 99, "m" * 101, "l" * 200, "\u00e9" * 120, "z" * 255),
)  # fmt: skip
_MODES = (0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0o000, 0o7777, 0o444)
_OWNERS = (0, 1, 1000, 65534, 2_097_151, 2_097_152, 4_000_000_000)
_DAY_S = 86400
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
_ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(0x01, 6, 0xFFFFFFFF),
    *(0x02, 4, 1000),
    *(0x04, 4, 0xFFFFFFFF),
    *(0x10, 4, 0xFFFFFFFF),
    *(0x20, 0, 0xFFFFFFFF),
)  # fmt: skip - version, then user, user 1000, group, mask, other

Description = dict[str, tuple[object, ...]]


class RandomTree:
    """Fills and changes one directory."""

    def __init__(self, root: str, seed: int, *, entries: int = 40) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._entries = entries

    def fill(self) -> None:
        """Make entries below the root, which exists; then give everything its attributes."""
        for _ in range(self._random.randint(1, self._entries)):
            self._add()
        self._attributes_everywhere()

    def change(self) -> None:
        """Do a few random things to what is there."""
        steps: tuple[Callable[[], None], ...] = (
            *(self._add, self._add, self._delete, self._delete, self._rewrite, self._replace),
            *(self._empty, self._touch, self._rename, self._link_old),
        )
        for _ in range(self._random.randint(1, 12)):
            self._random.choice(steps)()

    def _add(self) -> None:
        path = os.path.join(self._directory(), self._random.choice(_NAMES))
        if os.path.lexists(path) or len(os.fsencode(path)) > 1000:
            return
        makers = [self._file] * 6 + [os.mkdir] * 4 + [self._symlink] * 2
        maker = self._random.choice([*makers, self._sparse, self._hard, self._device, self._fifo])
        maker(path)
        if os.path.lexists(path):
            self._attributes(path)

    def _file(self, path: str) -> None:
        # To create one that is there is forbidden where all may write (fs.protected_regular).
        with open(path, "r+b" if os.path.lexists(path) else "wb") as file:
            file.truncate()
            file.write(self._random.randbytes(self._random.choice((0, 1, 511, 512, 513, 70000))))

    def _sparse(self, path: str) -> None:
        with open(path, "wb") as file:
            file.seek(self._random.choice((4096, 100_000, 1_500_000)))
            file.write(b"data")
            file.truncate(file.tell() + self._random.choice((0, 1, 400_000)))

    def _symlink(self, path: str) -> None:
        targets = ("/etc/passwd", "..", "no/such", self._random.choice(_NAMES), "t" * 150)
        os.symlink(self._random.choice(targets), path)

    def _hard(self, path: str) -> None:
        if files := self._paths(lambda mode: not stat.S_ISDIR(mode)):
            os.link(self._random.choice(files), path, follow_symlinks=False)

    def _device(self, path: str) -> None:
        kind = self._random.choice((stat.S_IFCHR, stat.S_IFBLK))
        os.mknod(path, kind | 0o600, os.makedev(self._random.randint(1, 4000), 300000))

    def _fifo(self, path: str) -> None:
        os.mkfifo(path)

    def _delete(self) -> None:
        if paths := self._paths(lambda _: True):
            _remove(self._random.choice(paths))

    def _rewrite(self) -> None:
        if paths := self._paths(stat.S_ISREG):
            self._file(self._random.choice(paths))

    def _touch(self) -> None:
        if paths := self._paths(lambda _: True):
            self._attributes(self._random.choice(paths))

    def _rename(self) -> None:
        if paths := self._paths(lambda mode: not stat.S_ISDIR(mode)):
            target = os.path.join(self._directory(), self._random.choice(_NAMES))
            if not os.path.isdir(target) or os.path.islink(target):
                os.rename(self._random.choice(paths), target)

    def _link_old(self) -> None:
        path = os.path.join(self._directory(), f"link{self._random.randint(0, 99)}")
        if not os.path.lexists(path):
            self._hard(path)

    def _replace(self) -> None:
        """Put something else where something was, also of another kind."""
        if paths := self._paths(lambda _: True):
            path = self._random.choice(paths)
            _remove(path)
            self._random.choice((self._file, os.mkdir, self._symlink))(path)
            self._attributes(path)

    def _empty(self) -> None:
        if directories := self._paths(stat.S_ISDIR):
            directory = self._random.choice(directories)
            for name in os.listdir(directory):
                _remove(os.path.join(directory, name))

    def _directory(self) -> str:
        return self._random.choice((self._root, *self._paths(stat.S_ISDIR)))

    def _paths(self, wanted: Callable[[int], bool]) -> list[str]:
        return sorted(
            path
            for parent, directories, files in os.walk(self._root)
            for path in (os.path.join(parent, name) for name in (*directories, *files))
            if wanted(os.lstat(path).st_mode)
        )

    def _attributes_everywhere(self) -> None:
        for path in (*self._paths(lambda _: True)[::-1], self._root):
            self._attributes(path)

    def _attributes(self, path: str) -> None:
        mode = os.lstat(path).st_mode
        choose = self._random.choice
        os.chown(path, choose(_OWNERS), choose(_OWNERS), follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(path, choose(_MODES))
        self._xattrs(path, mode)
        seconds = choose((0, 1, -_DAY_S, 1_700_000_000, 8**11 // 2, self._random.randrange(2**31)))
        ns = seconds * 10**9 + choose((0, 0, 1, 500_000_000, 999_999_999, 123_456_700))
        os.utime(path, ns=(ns, ns), follow_symlinks=False)

    def _xattrs(self, path: str, mode: int) -> None:
        chance = self._random.random()
        if chance < 0.2:
            os.setxattr(path, "trusted.cais", self._random.randbytes(20), follow_symlinks=False)
        if stat.S_ISREG(mode) and 0.1 < chance < 0.3:
            os.setxattr(path, "user.odd%41name", b"value\n=\0\xff", follow_symlinks=False)
        if stat.S_ISREG(mode) and 0.25 < chance < 0.4:
            os.setxattr(path, "security.capability", _CAPABILITY, follow_symlinks=False)
        if stat.S_ISDIR(mode) and 0.2 < chance < 0.35:
            os.setxattr(path, "system.posix_acl_default", _ACL, follow_symlinks=False)
        if stat.S_ISREG(mode) and 0.4 < chance < 0.5:
            os.setxattr(path, "system.posix_acl_access", _ACL, follow_symlinks=False)


def describe(root: str, *, root_time: bool = True) -> Description:
    """Return everything about every file below ``root``, sockets left out; links by their group.

    Args:
        root: ``.`` in the result; its time is left out without ``root_time``.

    """
    found: Description = {}
    groups: dict[tuple[int, int], str] = {}
    paths = [root]
    for parent, directories, files in os.walk(root):
        paths += [os.path.join(parent, name) for name in (*directories, *files)]
    for path in sorted(paths, key=os.fsencode):
        facts = os.lstat(path)
        name = os.path.relpath(path, root)
        if stat.S_ISSOCK(facts.st_mode):
            continue
        first = name
        if not stat.S_ISDIR(facts.st_mode):
            first = groups.setdefault((facts.st_dev, facts.st_ino), name)
        when = facts.st_mtime_ns if name != "." or root_time else 0
        facts_shown = (oct(facts.st_mode), facts.st_uid, facts.st_gid, when, first)
        found[name] = (*facts_shown, _xattrs_of(path), _content(path, facts))
    return found


def differences(one: Description, other: Description) -> str:
    """Return a line for each name that is not the same in both; empty if they are equal."""
    names = sorted(one.keys() | other.keys(), key=os.fsencode)
    unequal = [name for name in names if one.get(name) != other.get(name)]
    return "".join(f"{name!r}: {one.get(name)}\n   {other.get(name)}\n" for name in unequal)


def _xattrs_of(path: str) -> tuple[tuple[str, bytes], ...]:
    names = os.listxattr(path, follow_symlinks=False)
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith(("trusted.overlay.", "user.overlay.", "security.selinux"))
    )


def _content(path: str, facts: os.stat_result) -> object:
    if stat.S_ISREG(facts.st_mode):
        with open(path, "rb") as file:
            return facts.st_size, hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(facts.st_mode):
        return os.readlink(path)
    return facts.st_rdev if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode) else None


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
