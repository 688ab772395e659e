"""docker cp with the real CLI, and its API; what is expected, dockerd 20.10 does."""

import base64
import http.client
import io
import json
import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cais.testing.archives import tar_of
from cais.testing.daemon import TestDaemon

PREPARE = """
    mkdir -p /d/sub; echo 1 >/d/f; ln -s /d /ld; ln -s f /d/lf; ln -s /nosuch /dangling
    ln -s ../../../etc/passwd /esc; mkfifo /d/fifo; echo v >/vol/v; touch -d 2020-01-02 /d/f
    ln -s loop /loop; chmod 1777 /d/sub; chmod 4755 /d/f; touch /ready
"""


class Connection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("daemon", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def request(
    daemon: TestDaemon, method: str, container: str, path: str, body: bytes = b"", **flags: int
) -> tuple[int, dict[str, Any], bytes]:
    """Return the status, what the header says of the file, and the body."""
    connection = Connection(daemon.socket_path)
    query = "".join(f"&{name}={value}" for name, value in flags.items())
    target = f"/v1.41/containers/{container}/archive?path={quote(path, safe='')}{query}"
    headers = {"Content-Type": "application/x-tar"} if body else {}
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        text = answer.headers.get("X-Docker-Container-Path-Stat", "")
        facts = json.loads(base64.b64decode(text)) if text else {}
        return answer.status, facts, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module", params=["running", "stopped"])
def container(
    daemon: TestDaemon, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A container with all kinds of files and a volume."""
    name = f"copied-{request.param}"
    read_only = f"{tmp_path_factory.mktemp('read-only')}:/vr:ro"
    daemon.docker("run", "-d", "--name", name, "-v", "/vol", "-v", read_only, "busybox",
                  "sh", "-c", f"{PREPARE} sleep 600")  # fmt: skip
    daemon.docker("exec", name, "sh", "-c", "until test -e /ready; do :; done")
    if request.param == "stopped":
        daemon.docker("kill", name)
    yield name
    daemon.docker("rm", "-fv", name)


@pytest.mark.parametrize(
    ("path", "facts", "members"),
    [
        ("/d/f", ("f", 0o4755, ""), ["f"]),
        ("d/f", ("f", 0o4755, ""), ["f"]),
        ("/d", ("d", 0o40755, ""), ["d", "d/f", "d/fifo", "d/lf", "d/sub"]),
        ("/d/", ("d", 0o40755, ""), ["d", "d/f", "d/fifo", "d/lf", "d/sub"]),
        ("/d/.", (".", 0o40755, ""), [".", "./f", "./fifo", "./lf", "./sub"]),
        ("/ld", ("ld", 0o120777, "/d"), ["ld"]),
        ("/ld/", ("ld", 0o40755, ""), ["ld", "ld/f", "ld/fifo", "ld/lf", "ld/sub"]),
        ("/d/lf", ("lf", 0o120777, "/d/f"), ["lf"]),
        ("/dangling", ("dangling", 0o120777, "/nosuch"), ["dangling"]),
        ("/esc", ("esc", 0o120777, "/etc/passwd"), ["esc"]),
        ("/ld/../etc/passwd", ("passwd", 0o644, ""), ["passwd"]),
        ("/vol", ("vol", 0o40755, ""), ["vol", "vol/v"]),
        ("/d/fifo", ("fifo", 0o10644, ""), ["fifo"]),
        ("/d/sub", ("sub", 0o41777, ""), ["sub"]),
    ],
)
def test_what_is_at_a_path(
    daemon: TestDaemon, container: str, path: str, facts: tuple[str, int, str], members: list[str]
) -> None:
    name, mode, target = facts
    status, described, body = request(daemon, "HEAD", container, path)
    assert (status, body) == (200, b"")
    assert (described["name"], described["linkTarget"]) == (name, target)
    assert described["mode"] == go_mode(mode)
    status, again, body = request(daemon, "GET", container, path)
    assert (status, again) == (200, described)
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == members


def go_mode(mode: int) -> int:
    kinds = {0o40: 1 << 31, 0o120: 1 << 27, 0o10: 1 << 25}
    bits = {0o4000: 1 << 23, 0o1000: 1 << 20}
    return (
        mode & 0o777
        | kinds.get(mode >> 12 << 3, 0)
        | sum(go for bit, go in bits.items() if mode & bit)
    )


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nosuch", 404, "Could not find the file /nosuch in container {}"),
        ("/dangling/", 404, "Could not find the file /dangling/ in container {}"),
        ("/proc/1", 404, "Could not find the file /proc/1 in container {}"),
        ("/d/f/", 400, "lstat /d/f/: not a directory"),
        ("/loop", 400, "too many links in /loop"),
        ("", 400, "bad parameter: path cannot be empty"),
    ],
)
def test_paths_that_lead_nowhere(
    daemon: TestDaemon, container: str, path: str, status: int, said: str
) -> None:
    assert request(daemon, "HEAD", container, path)[0] == status
    answered, _, body = request(daemon, "GET", container, path)
    assert (answered, json.loads(body)["message"]) == (status, said.format(container))


def test_the_root_comes_without_what_the_kernel_makes_up(
    daemon: TestDaemon, container: str
) -> None:
    _, described, body = request(daemon, "GET", container, "/")
    assert described["name"] == "/"
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = set(archive.getnames())
    assert {"/d/f", "/vol/v", "/proc", "/sys"} <= names
    assert not [name for name in names if name.startswith(("/proc/", "/sys/"))]


def test_an_archive_is_unpacked(daemon: TestDaemon, container: str) -> None:
    content = tar_of({"./": None, "new": b"n", "in/deep": b"d", "in/link": "/d", "tmp": None})
    for path in ("/ld", "/vol"):
        assert request(daemon, "PUT", container, path, content)[0] == 200
    for path in ("/d/in/deep", "/vol/in/deep"):
        _, _, body = request(daemon, "GET", container, path)
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            member = archive.extractfile("deep")
            assert member is not None
            assert member.read() == b"d"
    assert request(daemon, "HEAD", container, "/d/in/link")[1]["linkTarget"] == "/d"
    assert request(daemon, "HEAD", container, "/vol")[1]["mode"] == go_mode(0o40755)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/d/f", 400, "extraction point is not a directory"),
        ("/nosuch", 404, "Could not find the file /nosuch in container {}"),
        ("/vr", 403, "mounted volume is marked read-only"),
    ],
)
def test_where_nothing_can_be_unpacked(
    daemon: TestDaemon, container: str, path: str, status: int, said: str
) -> None:
    answered, _, body = request(daemon, "PUT", container, path, tar_of({"x": b""}))
    assert (answered, json.loads(body)["message"]) == (status, said.format(container))


def test_archives_that_lead_out_or_are_none(daemon: TestDaemon, container: str) -> None:
    for content, said in (
        (tar_of({"../../esc": b"x"}), '"../../esc" is outside of "/d"'),
        (b"no archive" * 200, "not a tar archive"),
    ):
        status, _, body = request(daemon, "PUT", container, "/d", content)
        assert status == 400
        assert said in json.loads(body)["message"]
    assert request(daemon, "HEAD", container, "/esc")[1]["linkTarget"] == "/etc/passwd"


def test_kinds_that_may_not_be_replaced(daemon: TestDaemon, container: str) -> None:
    first = tar_of({"k": None, "k/file": b"1", "k/dir": None, "k/dir/in": b"2"})
    assert request(daemon, "PUT", container, "/d", first)[0] == 200
    for content, said in (
        (tar_of({"file": None}), 'overwrite non-directory "/d/k/file" with directory "/d/k"'),
        (tar_of({"dir": b"3"}), 'overwrite directory "/d/k/dir" with non-directory "/d/k"'),
    ):
        status, _, body = request(daemon, "PUT", container, "/d/k", content, noOverwriteDirNonDir=1)
        assert status == 400
        assert said in json.loads(body)["message"]
        assert request(daemon, "PUT", container, "/d/k", content)[0] == 200
    assert request(daemon, "HEAD", container, "/d/k/file")[1]["mode"] >> 31
    assert not request(daemon, "HEAD", container, "/d/k/dir")[1]["mode"] >> 31


@pytest.mark.parametrize("client", ["docker", "cais"])
def test_the_command(
    daemon: TestDaemon, container: str, client: str, docker_major: int, tmp_path: Path
) -> None:
    run = daemon.docker if client == "docker" else daemon.cais
    quietly = ["-q"] if client == "cais" or docker_major >= 23 else []
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "a").write_text("A")
    (source / "deep").mkdir()
    (source / "link").symlink_to("a")
    top = f"/cp-{client}"
    assert request(daemon, "PUT", container, "/", tar_of({top[1:]: None}))[0] == 200
    run("cp", str(source / "a"), f"{container}:{top}/renamed")
    run("cp", str(source), f"{container}:{top}/")
    run("cp", *quietly, f"{source}/.", f"{container}:{top}/fresh")
    run("cp", "-L", str(source / "link"), f"{container}:{top}/")
    run("cp", f"{container}:{top}", str(out))
    for name in ("renamed", "source/a", "fresh/a", "link"):
        assert (out / name).read_text() == "A"
    assert (out / "source/link").is_symlink()
    assert (out / "fresh/deep").is_dir()
    run("cp", f"{container}:{top}/source/.", str(out))
    assert (out / "a").read_text() == "A"
    run("cp", f"{container}:/d/f", str(out))
    assert (out / "f").stat().st_mode & 0o7777 == 0o4755
    run("cp", "-L", f"{container}:/ld/f", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "1\n"


@pytest.mark.parametrize("client", ["docker", "cais"])
def test_commands_that_fail(
    daemon: TestDaemon, container: str, client: str, tmp_path: Path
) -> None:
    run = daemon.docker if client == "docker" else daemon.cais
    (tmp_path / "file").write_text("x")
    # The docker CLI 20.10 has words of its own for what is missing.
    older = f"|No such container:path: {container}:/nosuch" if client == "docker" else ""
    nowhere = f"/nosuch in container {container}{older}"
    for arguments, said in (
        ((f"{container}:/nosuch", str(tmp_path)), f"the file {nowhere}"),
        ((str(tmp_path / "file"), f"{container}:/nosuch/x"), nowhere),
        ((str(tmp_path), f"{container}:/d/f"), "cannot copy directory"),
        ((str(tmp_path / "file"), f"{container}:/nosuch/"), "no such directory"),
        ((str(tmp_path / "file"), str(tmp_path)), "must specify at least one container source"),
        ((f"{container}:/d", "other:/d"), "copying between containers is not supported"),
        (("-", f"{container}:/d/f"), "must be a directory"),
    ):
        result = run("cp", *arguments, check=False)
        assert result.returncode == 1
        assert re.search(said, result.stderr)


@pytest.mark.parametrize("user", ["1000:1001", "nobody"])
def test_files_become_the_users(daemon: TestDaemon, user: str) -> None:
    created = daemon.docker("create", "-u", user, "busybox").stdout.strip()
    try:
        content = tar_of({"given": b"x"})
        assert request(daemon, "PUT", created, "/tmp", content, copyUIDGID=1)[0] == 200
        _, _, body = request(daemon, "GET", created, "/tmp/given")
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            member = archive.getmember("given")
        assert (member.uid, member.gid) == ((1000, 1001) if user[0] == "1" else (65534, 65534))
    finally:
        daemon.docker("rm", created)


def test_a_read_only_root_refuses_and_its_volume_does_not(daemon: TestDaemon) -> None:
    created = daemon.docker("create", "--read-only", "-v", "/vol", "busybox").stdout.strip()
    try:
        status, _, body = request(daemon, "PUT", created, "/tmp", tar_of({"x": b""}))
        assert (status, json.loads(body)["message"]) == (
            403,
            "container rootfs is marked read-only",
        )
        assert request(daemon, "PUT", created, "/vol", tar_of({"x": b""}))[0] == 200
    finally:
        daemon.docker("rm", "-v", created)


def test_a_file_copied_in_is_there_when_it_starts(daemon: TestDaemon, tmp_path: Path) -> None:
    (tmp_path / "message").write_text("hello\n")
    daemon.docker("create", "--name", "fed", "busybox", "cat", "/message")
    try:
        daemon.docker("cp", str(tmp_path / "message"), "fed:/")
        assert daemon.docker("diff", "fed").stdout == "A /message\n"
        assert daemon.docker("start", "-a", "fed").stdout == "hello\n"
    finally:
        daemon.docker("rm", "-f", "fed")
