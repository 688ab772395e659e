"""``busybox``: Debian's busybox-static, every applet a hard link, and ``sh`` to start with.

Nothing depends on when or where it is built: times are those of the package's own file, so one
package gives one image id.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cais.errors import UnavailableError
from cais.images import tar_writer
from cais.images.bootstrap.docker_archive import spooled, wrap
from cais.images.bootstrap.lock import Lock, Package
from cais.images.tar import DIRECTORY, HARD_LINK, SYMLINK

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = Path("/bin/busybox")
_PACKAGE = "busybox-static"
_PT_INTERP = 3
_DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700,
    "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755,
    "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_FILES = {
    "etc/group": (
        b"root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\n"
        b"mail:x:8:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"
    ),
    "etc/passwd": (
        b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        b"bin:x:2:2:bin:/bin:/bin/false\nsys:x:3:3:sys:/dev:/bin/false\n"
        b"mail:x:8:8:mail:/var/spool/mail:/bin/false\n"
        b"www-data:x:33:33:www-data:/var/www:/bin/false\n"
        b"nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
}


def build_busybox_image() -> BinaryIO:
    """Return the archive of ``busybox:latest``, of the busybox that is installed or the package's.

    Blocks: a moment; longer when the package has to be downloaded.

    Raises:
        UnavailableError: busybox-static is neither installed nor to be had.

    """
    if BUSYBOX.is_file() and _is_static(BUSYBOX):
        return _image(BUSYBOX)
    with _downloaded("") as (_, program):
        return _image(program)


def build_locked_busybox_image(lock: Lock | None) -> tuple[BinaryIO, Lock]:
    """Return the same of the package that ``lock`` names, or of the newest, and what names it.

    Raises:
        ConflictError: the archive has another package by that version.
        UnavailableError: as ``build_busybox_image``, or the version is not to be had.

    """
    version = lock.packages[0].version if lock and lock.packages else ""
    with _downloaded(version) as (package, program):
        made = Lock("busybox", package.architecture, {}, (package,))
        if lock is not None:
            lock.expect(made)
        return _image(program), made


def _image(program: Path) -> BinaryIO:
    mtime = int(program.stat().st_mtime)
    return wrap("busybox:latest", spooled(_rootfs(program)), ["sh"], mtime)


@contextlib.contextmanager
def _downloaded(version: str) -> Iterator[tuple[Package, Path]]:
    """Give the package, downloaded and verified by apt, and the program in it."""
    wanted = f"{_PACKAGE}={version}" if version else _PACKAGE
    with tempfile.TemporaryDirectory(prefix="cais-busybox-") as directory:
        _run(["apt-get", "download", wanted], directory)
        file = next(Path(directory).glob(f"{_PACKAGE}_*.deb"))
        _run(["dpkg-deb", "--extract", file.name, "."], directory)
        names = ["dpkg-deb", "--show", "--showformat=${Version} ${Architecture}", file.name]
        found, architecture = _run(names, directory).split()
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        for candidate in ("bin/busybox", "usr/bin/busybox"):
            if (program := Path(directory, candidate)).is_file():
                yield Package(_PACKAGE, found, architecture, sha256), program
                return
        raise UnavailableError(f"{file.name} holds no busybox")


def _run(command: list[str], directory: str) -> str:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise UnavailableError(f"{_PACKAGE} cannot be had: there is no {command[0]}") from exc
    if done.returncode:
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise UnavailableError(f"{_PACKAGE} cannot be had: {command[0]}: {last}")
    return done.stdout


def _is_static(program: Path) -> bool:
    """Say whether a 64-bit ELF file names no interpreter."""
    content = program.read_bytes()
    if content[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    kinds = (struct.unpack_from("<I", content, offset + i * size)[0] for i in range(count))
    return _PT_INTERP not in kinds


def _rootfs(program: Path) -> Iterator[bytes]:
    mtime = int(program.stat().st_mtime)
    listing = subprocess.run([program, "--list"], capture_output=True, check=True).stdout.decode()
    for name, mode in sorted(_DIRECTORIES.items()):
        yield tar_writer.header(f"{name}/", kind=DIRECTORY, mode=mode, mtime=mtime)
    yield from _file("bin/busybox", program.read_bytes(), 0o755, mtime)
    for applet in sorted(set(listing.split()) - {"busybox"}):
        yield tar_writer.header(
            f"bin/{applet}", kind=HARD_LINK, mode=0o755, link="bin/busybox", mtime=mtime
        )
    yield tar_writer.header(
        "usr/bin/env", kind=SYMLINK, mode=0o777, link="../../bin/env", mtime=mtime
    )
    for name, content in sorted(_FILES.items()):
        yield from _file(name, content, 0o644, mtime)
    yield tar_writer.END


def _file(name: str, content: bytes, mode: int, mtime: int) -> Iterator[bytes]:
    yield tar_writer.header(name, len(content), mode=mode, mtime=mtime)
    yield content + tar_writer.padding(len(content))
