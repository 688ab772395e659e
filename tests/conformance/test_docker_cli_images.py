"""Images with the real CLI: load, save, import, tag, history, remove."""

# ruff: noqa: E501 - messages and archives stand on one line each

import gzip
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from cais.testing.archives import docker_archive, tar_of
from cais.testing.daemon import TestDaemon


def compressed(data: bytes, form: str) -> bytes:
    if form == "gzip":
        return gzip.compress(data, 1)
    if form == "zstd":
        return subprocess.run(
            ["zstd", "-1", "-c"], input=data, capture_output=True, check=True
        ).stdout
    return data


@pytest.mark.parametrize("form", ["plain", "gzip", "zstd"])
def test_load(daemon: TestDaemon, form: str) -> None:
    layers = [tar_of({"one": b"1", "gone": b"x", "d": None, "d/old": b"x"}),
              tar_of({"two": b"2", ".wh.gone": b"", "d": None, "d/.wh..wh..opq": b"", "d/new": b"n"})]  # fmt: skip
    archive = compressed(docker_archive("loaded:1", layers, Cmd=["/x"]), form)
    try:
        assert "Loaded image: loaded:1" in daemon.docker("load", stdin=archive).stdout
        (document,) = json.loads(daemon.docker("image", "inspect", "loaded:1").stdout)
        assert document["RepoTags"] == ["loaded:1"]
        assert document["Config"]["Cmd"] == ["/x"]
        assert len(document["RootFS"]["Layers"]) == 2
        daemon.docker("create", "--name", "from-loaded", "loaded:1")
    finally:
        daemon.docker("rm", "-f", "from-loaded", check=False)
        daemon.docker("rmi", "-f", "loaded:1", check=False)


def test_whiteouts_are_seen_by_containers(
    daemon: TestDaemon, busybox_tar: bytes, tmp_path: Path
) -> None:
    base = tmp_path / "base.tar"
    base.write_bytes(busybox_tar)
    with tarfile.open(base) as archive:
        rootfs = archive.extractfile("0/layer.tar")
        assert rootfs is not None
        layers = [rootfs.read(),
                  tar_of({"gone": b"x", "d": None, "d/old": b"x", "kept": b"k"}),
                  tar_of({".wh.gone": b"", "d": None, "d/.wh..wh..opq": b"", "d/new": b"n"})]  # fmt: skip
    daemon.docker("load", stdin=docker_archive("white:1", layers, Cmd=["sh"]))
    try:
        out = daemon.docker(
            "run", "--rm", "white:1", "sh", "-c", "ls / | grep -c gone; ls -A /d; cat /kept"
        )
        assert out.stdout == "0\nnew\nk"
    finally:
        daemon.docker("rmi", "white:1")


def test_a_saved_image_loads_again(daemon: TestDaemon, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    before = daemon.docker("images", "-q", "--no-trunc", "busybox").stdout
    daemon.docker("tag", "busybox", "again:2")
    daemon.docker("save", "-o", str(path), "again:2")
    daemon.docker("rmi", "again:2")
    try:
        assert "Loaded image: again:2" in daemon.docker("load", "-i", str(path)).stdout
        assert daemon.docker("images", "-q", "--no-trunc", "again:2").stdout == before
        assert daemon.docker("run", "--rm", "again:2", "echo", "ran").stdout == "ran\n"
    finally:
        daemon.docker("rmi", "again:2", check=False)


def test_import_with_changes(daemon: TestDaemon) -> None:
    data = tar_of({"hello": b"world"})
    changes = ('CMD ["/hello"]', "ENV A=b", "WORKDIR /w", "LABEL k=v", "EXPOSE 80", "USER 5")
    flags = [word for change in changes for word in ("-c", change)]
    identifier = daemon.docker("import", *flags, "-", "imported:x", stdin=data).stdout.strip()
    try:
        (document,) = json.loads(daemon.docker("image", "inspect", "imported:x").stdout)
        config = document["Config"]
        assert document["Id"] == identifier
        assert (config["Cmd"], config["WorkingDir"], config["User"]) == (["/hello"], "/w", "5")
        assert (config["Labels"], config["ExposedPorts"]) == ({"k": "v"}, {"80/tcp": {}})
        assert "A=b" in config["Env"]
    finally:
        daemon.docker("rmi", "imported:x")


def test_list_tag_history_and_remove(daemon: TestDaemon) -> None:
    daemon.docker("tag", "busybox", "registry.example:5000/a/b:v1")
    listed = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert {"busybox:latest", "registry.example:5000/a/b:v1"} <= set(listed)
    assert len(daemon.docker("history", "-q", "busybox").stdout.split()) == 1
    assert daemon.docker("rmi", "registry.example:5000/a/b:v1").stdout == (
        "Untagged: registry.example:5000/a/b:v1\n"
    )
    dangling = daemon.docker("images", "-q", "--filter", "dangling=true").stdout
    assert not dangling


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage" * 1000, tar_of({"x": b"y"}), tar_of({"manifest.json": b"[{}]"}), gzip.compress(b"no tar")],
)  # fmt: skip
def test_bad_archives_are_refused(daemon: TestDaemon, data: bytes) -> None:
    before = daemon.docker("images", "-aq").stdout
    result = daemon.docker("load", stdin=data, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    assert daemon.docker("images", "-aq").stdout == before


def test_containers_share_their_image(daemon: TestDaemon) -> None:
    """Twenty containers of a 30 MB image stay within 5 MB of one."""
    block = tar_of({"big": bytes(range(256)) * (30 << 12)})
    daemon.docker("load", stdin=docker_archive("big:1", [block], Cmd=["/x"]))
    names = [f"share{index}" for index in range(20)]
    try:
        before = disk_bytes(daemon.data_root)
        for name in names:
            daemon.docker("create", "--name", name, "big:1")
        assert disk_bytes(daemon.data_root) - before < 5 << 20
    finally:
        daemon.docker("rm", *names, check=False)
        daemon.docker("rmi", "big:1", check=False)


def disk_bytes(path: Path) -> int:
    out = subprocess.run(["du", "-sk", path], capture_output=True, text=True, check=True).stdout
    return int(out.split()[0]) << 10
