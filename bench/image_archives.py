"""The images that are loaded, saved, pushed and pulled: archives made once and kept in a cache."""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cais.testing.archives import docker_archive, image_config

CACHE = Path(__file__).parents[1] / ".cache" / "bench"
NAME = "debian:stable"
BIG_NAME = "big:latest"

_LAYERS, _LAYER_BYTES, _FILE_BYTES = 30, 4 * 1024 * 1024, 32 * 1024
_BIG_BYTES = 2 * 1024**3


def debian() -> Path | None:
    """Return an archive of a minimal Debian, made with mmdebstrap; None without it."""
    path = CACHE / "debian.tar"
    if path.exists():
        return path
    if shutil.which("mmdebstrap") is None:
        return None
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "stable") if release["ID"] == "debian" else "stable"
    command = ["mmdebstrap", "--variant=minbase", "--quiet", suite, "-"]
    made = subprocess.run(command, capture_output=True, check=False, timeout=600)
    if made.returncode:
        print(f"no Debian image: {made.stderr.decode().strip().splitlines()[-3:]}")
        return None
    with _written_whole(path) as unfinished:
        unfinished.write_bytes(docker_archive(NAME, [made.stdout], Cmd=["bash"]))
    return path


def many_layers() -> Path | None:
    """Return an archive of an image whose layers are pieces of a Debian's; None without one."""
    path = CACHE / "layers.tar"
    if path.exists():
        return path
    source = debian()
    if source is None:
        return None
    with source.open("rb") as file:
        file.seek(_LAYER_BYTES)
        layers = [_layer(index, file.read(_LAYER_BYTES)) for index in range(_LAYERS)]
    with _written_whole(path) as unfinished:
        unfinished.write_bytes(docker_archive(NAME, layers, Cmd=["true"]))
    return path


def big_layer() -> Path:
    """Return an archive of an image with one layer of 2 GiB, one file, half of it zeros."""
    path = CACHE / "big.tar"
    if not path.exists():
        with _written_whole(path) as unfinished:
            _write_big(unfinished)
    return path


IMAGES: dict[str, Callable[[], Path | None]] = {
    "Debian image": debian,
    "image of 30 layers": many_layers,
}


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there at the end gets its name, after a failure nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _layer(index: int, content: bytes) -> bytes:
    """Return a layer of some hundred files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place in range(0, len(content), _FILE_BYTES):
            piece = content[place : place + _FILE_BYTES]
            archive.addfile(_member(f"layer{index}/file{place}", len(piece)), io.BytesIO(piece))
    return buffer.getvalue()


def _write_big(path: Path) -> None:
    layer_bytes = tarfile.BLOCKSIZE + _BIG_BYTES + 2 * tarfile.BLOCKSIZE
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        file.write(_head("layer.tar", layer_bytes))
        for piece in _big_layer_pieces():
            file.write(piece)
            hashed.update(piece)
        config: dict[str, object] = image_config([], Cmd=["true"])
        config |= {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashed.hexdigest()}"]}}
        config |= {"history": [{"created_by": "bench"}]}
        manifest = [{"Config": "config.json", "RepoTags": [BIG_NAME], "Layers": ["layer.tar"]}]
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            content = json.dumps(document).encode()
            file.write(_head(name, len(content)) + content)
            file.write(bytes(-len(content) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def _big_layer_pieces() -> Iterator[bytes]:
    """Yield a layer of one file: a MiB that compresses by half, repeated."""
    noise = (hashlib.sha256(number.to_bytes(4)).digest() for number in range(16384))
    piece = b"".join(one + bytes(32) for one in noise)
    yield _head("file", _BIG_BYTES)
    for _ in range(_BIG_BYTES // len(piece)):
        yield piece
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(name: str, size: int) -> bytes:
    return _member(name, size).tobuf(tarfile.GNU_FORMAT)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member
