"""Rows of pull and push: the same images, each daemon with a registry of its own on loopback."""

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.measure import Row, Sample, in_turns, milliseconds
from bench.subjects import CACHE, Subject, debian_archive
from cais.testing.archives import docker_archive
from cais.testing.docker_registry import DockerRegistry

LAYERS, LAYER_BYTES = 30, 4 * 1024 * 1024
BIG_BYTES = 2 * 1024**3
MEMORY_MIB = 150.0
_TIMEOUT_S = 600

Action = Callable[[Subject], float]


def measure(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    """Yield the rows; none where there is no registry or no Debian image."""
    names = [f"docker {verb} of {what}" for verb in ("pull", "push") for what in _IMAGES]
    if not shutil.which("docker-registry") or not any(only in name for name in names):
        return
    subjects = [subject for subject in (ours, peer) if subject]
    with ExitStack() as stack:
        sites = {one: stack.enter_context(_site(one)) for one in subjects}
        for what, make in _IMAGES.items():
            archive = make()
            if archive is None:
                continue
            pulls = _pulls(sites, archive)
            pushes = _pushes(sites, archive)
            for verb, actions in (("pull", pulls), ("push", pushes)):
                if only in (name := f"docker {verb} of {what}"):
                    yield from _rows(name, actions, ours, peer, times)


def measure_memory(ours: Subject, only: str) -> Iterator[Row]:
    """Yield how much memory the daemon takes at most while it handles a layer of 2 GiB."""
    rows = {verb: f"caisd at most, docker {verb} of a 2 GiB layer" for verb in _BIG}
    if not shutil.which("docker-registry") or not any(only in name for name in rows.values()):
        return
    with _site(ours) as site:
        path = _big_archive(ours.directory)
        name = f"{site.name}/big"
        for verb, arguments in _BIG.items():
            with ours.watched_memory() as most:
                for words in arguments:
                    ours.docker(*(word.format(path=path, name=name) for word in words),
                                timeout_s=_TIMEOUT_S)  # fmt: skip
            yield Row(rows[verb], "MiB", "the limit", Sample([most()]), Sample([MEMORY_MIB]), 1.0)
        path.unlink()
        ours.docker("rmi", name, "big", check=False)


def _site(subject: Subject) -> DockerRegistry:
    directory = subject.directory / "registry"
    directory.mkdir(exist_ok=True)
    return DockerRegistry(subject, directory)


def _rows(
    name: str, actions: dict[str, Action], ours: Subject, peer: Subject | None, times: int
) -> Iterator[Row]:
    """Measure ours beside dockerd, then beside whom else there is, all on loopback."""
    docker = actions["docker"]
    measured = in_turns(lambda: docker(ours), (lambda: docker(peer)) if peer else None, times, 1)
    yield Row(name, "ms", "dockerd", *measured, 0.8)
    for other, action in actions.items():
        if other != "docker" and shutil.which(other):
            sample, _ = in_turns(lambda action=action: action(ours), None, times, 1)  # type: ignore[misc]
            yield Row(name, "ms", other, measured[0], sample)


def _pulls(sites: dict[Subject, DockerRegistry], archive: Path) -> dict[str, Action]:
    for subject, site in sites.items():
        site.clear()
        copy = ["copy", "--dest-tls-verify=false", f"docker-archive:{archive}"]
        subject.run_inside(["skopeo", "--insecure-policy", *copy, f"docker://{site.name}/box"],
                           timeout_s=_TIMEOUT_S)  # fmt: skip

    def docker(subject: Subject) -> float:
        name = f"{sites[subject].name}/box"
        subject.docker("rmi", name, check=False)
        return milliseconds(lambda: subject.docker("pull", name, timeout_s=_TIMEOUT_S))

    def podman(subject: Subject) -> float:
        roots = [f"--{part}={subject.directory}/podman/{part}" for part in ("root", "runroot")]
        command = ["env", "-u", "DOCKER_CONFIG", "podman", *roots, "--storage-driver=overlay"]
        name = f"{sites[subject].name}/box"
        subject.run_inside([*command, "rmi", "--all", "--force"], check=False)
        pull = [*command, "pull", "--tls-verify=false", name]
        return milliseconds(lambda: subject.run_inside(pull, timeout_s=_TIMEOUT_S))

    return {"docker": docker, "podman": podman}


def _pushes(sites: dict[Subject, DockerRegistry], archive: Path) -> dict[str, Action]:
    def docker(subject: Subject) -> float:
        site = sites[subject]
        names = [f"{site.name}/{name}" for name in ("box", "pushed")]
        subject.docker("rmi", *names, _NAME, check=False)  # a pulled one is compressed already
        subject.docker("load", "-i", str(archive), timeout_s=_TIMEOUT_S)
        subject.docker("tag", _NAME, f"{site.name}/pushed")
        site.clear()
        name = f"{site.name}/pushed"
        return milliseconds(lambda: subject.docker("push", name, timeout_s=_TIMEOUT_S))

    def skopeo(subject: Subject) -> float:
        site = sites[subject]
        site.clear()
        copy = ["copy", "--dest-tls-verify=false", f"docker-archive:{archive}"]
        command = ["skopeo", "--insecure-policy", *copy, f"docker://{site.name}/pushed"]
        return milliseconds(lambda: subject.run_inside(command, timeout_s=_TIMEOUT_S))

    return {"docker": docker, "skopeo": skopeo}


_NAME = "debian:stable"


def _debian() -> Path | None:
    return debian_archive(CACHE)


def _many_layers() -> Path | None:
    """Return an image whose layers are pieces of a Debian's; None without one."""
    path = CACHE / "layers.tar"
    source = debian_archive(CACHE)
    if source is None or path.exists():
        return path if source else None
    with source.open("rb") as file:
        file.seek(LAYER_BYTES)
        layers = [_layer(index, file.read(LAYER_BYTES)) for index in range(LAYERS)]
    path.write_bytes(docker_archive(_NAME, layers, Cmd=["true"]))
    return path


def _layer(index: int, content: bytes) -> bytes:
    """Return a layer of some hundred files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place in range(0, len(content), 32 * 1024):
            piece = content[place : place + 32 * 1024]
            member = tarfile.TarInfo(f"layer{index}/file{place}")
            member.size = len(piece)
            archive.addfile(member, io.BytesIO(piece))
    return buffer.getvalue()


def _big_archive(directory: Path) -> Path:
    """Return an image with one layer of 2 GiB: a piece that compresses by half, repeated."""
    import hashlib
    import json

    path = directory / "big.tar"
    piece = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() + bytes(32)
                     for n in range(16384))  # fmt: skip
    layer = tarfile.TarInfo("file")
    layer.size = BIG_BYTES
    size = 512 + BIG_BYTES + 1024
    hashed = hashlib.sha256(head := layer.tobuf(tarfile.GNU_FORMAT))
    with path.open("wb") as file:
        outer = tarfile.TarInfo("layer.tar")
        outer.size = size
        file.write(outer.tobuf(tarfile.GNU_FORMAT) + head)
        for _ in range(BIG_BYTES // len(piece)):
            file.write(piece)
            hashed.update(piece)
        file.write(bytes(1024))
        hashed.update(bytes(1024))
        config = {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashed.hexdigest()}"]},
        }  # fmt: skip
        manifest = [{"Config": "config.json", "RepoTags": ["big:latest"], "Layers": ["layer.tar"]}]
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            content = json.dumps(document).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.write(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return path


_IMAGES: dict[str, Callable[[], Path | None]] = {
    "a Debian image": _debian,
    "an image of 30 layers": _many_layers,
}
_BIG: dict[str, list[tuple[str, ...]]] = {
    "load": [("load", "-i", "{path}")],
    "push": [("tag", "big", "{name}"), ("push", "{name}")],
    "pull": [("rmi", "big", "{name}"), ("pull", "{name}")],
}
