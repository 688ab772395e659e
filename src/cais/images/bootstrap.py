"""Base images without a registry: busybox from Debian's busybox-static, Debian from mmdebstrap.

Both come as an open docker-archive ready for ``load``. Nothing in a busybox image depends on when
or where it was built: times are those of the package's own file, so one package gives one image
id. A Debian image's times are capped at the midnight before it was built.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cais.errors import InvalidArgumentError, UnavailableError
from cais.images import tar_writer
from cais.images.records import format_time
from cais.images.tar import DIRECTORY, HARD_LINK, SYMLINK
from cais.spec.digest import Digest, digest_of, encoded
from cais.spec.image import ArchiveEntry, ContainerConfig, History, ImageConfig, RootFs, encode
from cais.spec.platform import host_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = Path("/bin/busybox")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1024 * 1024
_PT_INTERP = 3
_is_suite = re.compile(r"[a-z][a-z0-9.-]{0,63}").fullmatch
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
    """Return the archive of ``busybox:latest``: every applet a hard link, ``sh`` to start with.

    Blocks: a moment; longer when the package has to be downloaded.

    Raises:
        UnavailableError: busybox-static is neither installed nor to be had.

    """
    with _busybox() as program:
        mtime = int(program.stat().st_mtime)
        return _archive("busybox:latest", _spooled(_busybox_rootfs(program)), ["sh"], mtime)


def build_debian_image(suite: str = "stable") -> BinaryIO:
    """Return the archive of ``debian:<suite>``, a minimal system from the host's mirror.

    Blocks: for a download and an installation, tens of seconds.

    Raises:
        InvalidArgumentError: ``suite`` is no suite's name.
        UnavailableError: mmdebstrap is not installed, or failed; its last lines are in the text.

    """
    if not _is_suite(suite):
        raise InvalidArgumentError(f"{suite[:80]!r} is no Debian suite")
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError("mmdebstrap is not installed: apt-get install mmdebstrap")
    midnight = int(time.time()) // 86400 * 86400
    rootfs = tempfile.TemporaryFile()  # noqa: SIM115 - given away
    done = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", suite, "-"],
        stdout=rootfs,
        stderr=subprocess.PIPE,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(midnight)},
        check=False,
    )
    if done.returncode:
        rootfs.close()
        raise UnavailableError(f"mmdebstrap {suite}: {_last_lines(done.stderr)}")
    rootfs.seek(0)
    return _archive(f"debian:{suite}", rootfs, ["bash"], midnight)


@contextlib.contextmanager
def _busybox() -> Iterator[Path]:
    """Give the path of a static busybox: the installed one, or the package's."""
    if BUSYBOX.is_file() and _is_static(BUSYBOX):
        yield BUSYBOX
        return
    with tempfile.TemporaryDirectory(prefix="cais-busybox-") as directory:
        _run(["apt-get", "download", "busybox-static"], directory)
        package = next(Path(directory).glob("busybox-static_*.deb"))
        _run(["dpkg-deb", "--extract", package.name, "."], directory)
        for candidate in ("bin/busybox", "usr/bin/busybox"):
            if (program := Path(directory, candidate)).is_file():
                yield program
                return
        raise UnavailableError(f"{package.name} holds no busybox")


def _run(command: list[str], directory: str) -> None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    except FileNotFoundError as exc:
        raise UnavailableError(
            f"busybox-static is not installed and there is no {command[0]}"
        ) from exc
    if done.returncode:
        raise UnavailableError(
            f"busybox-static is not installed, and {command[0]} failed: {_last_lines(done.stderr)}"
        )


def _last_lines(text: bytes) -> str:
    return " / ".join(text.decode(errors="replace").strip().splitlines()[-3:])


def _is_static(program: Path) -> bool:
    """Say whether a 64-bit ELF file names no interpreter."""
    content = program.read_bytes()
    if content[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    kinds = (struct.unpack_from("<I", content, offset + i * size)[0] for i in range(count))
    return _PT_INTERP not in kinds


def _busybox_rootfs(program: Path) -> Iterator[bytes]:
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


def _spooled(chunks: Iterator[bytes]) -> BinaryIO:
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - given away
    for chunk in chunks:
        spool.write(chunk)
    spool.seek(0)
    return spool


def _archive(name: str, rootfs: BinaryIO, command: list[str], created: int) -> BinaryIO:
    """Wrap a root file system as a docker-archive of one image; takes ``rootfs`` over."""
    with rootfs:
        diff_id = _digest_of_file(rootfs)
        config = encode(_config(diff_id, command, format_time(created * 1_000_000_000)))
        layer, config_name = f"{encoded(diff_id)}.tar", f"{encoded(digest_of(config))}.json"
        entry = ArchiveEntry(config=config_name, repo_tags=[name], layers=[layer])
        return _spooled(_members(layer, rootfs, config_name, config, encode(entry)))


def _members(
    layer: str, rootfs: BinaryIO, config_name: str, config: bytes, entry: bytes
) -> Iterator[bytes]:
    size = rootfs.seek(0, io.SEEK_END)
    rootfs.seek(0)
    yield tar_writer.header(layer, size)
    while chunk := rootfs.read(_CHUNK):
        yield chunk
    yield tar_writer.padding(size)
    yield from tar_writer.file(config_name, config)
    yield from tar_writer.file("manifest.json", b"[" + entry + b"]")
    yield tar_writer.END


def _config(diff_id: Digest, command: list[str], created: str) -> ImageConfig:
    host = host_platform()
    return ImageConfig(
        architecture=host.architecture,
        os=host.os,
        variant=host.variant,
        created=created,
        config=ContainerConfig(env=[_PATH], cmd=command),
        rootfs=RootFs("layers", [diff_id]),
        history=[History(created=created, created_by="cais image bootstrap")],
    )


def _digest_of_file(file: BinaryIO) -> Digest:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return Digest(f"sha256:{digest.hexdigest()}")
