"""Small images for tests, as the archives ``docker load`` takes, made from this host's busybox."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:nobody\nnobody:x:65534:\n"
Document = dict[str, Any]


def tar_of(files: Mapping[str, bytes | str | None]) -> bytes:
    """Return a tar archive: bytes are files (programs in bin/), text a link, None a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if content is None:
                member.type = tarfile.DIRTYPE
                member.mode = 0o1777 if name == "tmp" else 0o755
                archive.addfile(member)
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.mode = 0o755 if name.startswith("bin/") else 0o644
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def busybox_rootfs() -> bytes:
    """Return a root filesystem with busybox, all its applets and two users."""
    program = shutil.which("busybox")
    assert program is not None, "busybox-static is not installed"
    listing = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    with open(os.fsencode(program), "rb") as file:
        files: dict[str, bytes | str | None] = {"bin/busybox": file.read()}
    files |= dict.fromkeys(("bin", "etc", "home", "root", "tmp", "usr", "var"))
    files |= {f"bin/{name}": "busybox" for name in listing.stdout.split() if name != "busybox"}
    files |= {"etc/passwd": PASSWD.encode(), "etc/group": GROUP.encode()}
    return tar_of(files)


def image_config(layers: Sequence[bytes], **config: object) -> Document:
    """Return an image's configuration document; ``config`` are fields such as ``Cmd``."""
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"),
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        | config,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "test"} for _ in layers],
    }


def docker_archive(reference: str, layers: Sequence[bytes], **config: object) -> bytes:
    """Return an archive as ``docker save`` writes it (``manifest.json``, plain layers)."""
    document = json.dumps(image_config(layers, **config)).encode()
    config_name = f"{hashlib.sha256(document).hexdigest()}.json"
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": names}]
    files: dict[str, bytes | str | None] = {config_name: document}
    files |= dict(zip(names, layers, strict=True))
    files["manifest.json"] = json.dumps(manifest).encode()
    return tar_of(files)


def busybox_archive(reference: str = "busybox:latest") -> bytes:
    """Return an image of busybox whose command is ``sh``, as ``docker load`` takes it."""
    return docker_archive(reference, [busybox_rootfs()], Cmd=["sh"])


def digest_of(data: bytes) -> str:
    """Return the digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
