"""docker commit, diff and export with the real CLI; what is expected, dockerd 20.10 does."""

import json
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cais.testing.daemon import TestDaemon

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHANGES = """
    mkdir /new; echo hi >/new/f; rm /etc/group; chmod 700 /home; rm -rf /usr; mkdir /usr
    echo x >/usr/k; touch -d 2001-01-01 /etc; ln -s a /lnk; mknod /fifo p; ln /etc/passwd /hard
    rm -rf /var; echo z >/var; mkdir -p /root/a/b; rmdir /root/a/b; cp -a /bin/busybox /bb
"""
DIFF = """\
A /bb
C /etc
D /etc/group
A /fifo
A /hard
C /home
A /lnk
A /new
A /new/f
C /root
A /root/a
C /usr
A /usr/k
C /var
"""


@pytest.fixture(scope="module")
def changed(daemon: TestDaemon) -> Iterator[str]:
    """A container that has changed its root and ended."""
    options = ("-e", "A=1", "-l", "x=y", "--name", "changed")
    daemon.docker("run", *options, "busybox", "sh", "-c", CHANGES)
    yield "changed"
    daemon.docker("rm", "-f", "changed")


@pytest.fixture
def committed(daemon: TestDaemon) -> Iterator[str]:
    """A name for an image, deleted afterwards with containers made from it."""
    yield "committed:1"
    for container in daemon.docker("ps", "-aq", "--filter", "ancestor=committed:1").stdout.split():
        daemon.docker("rm", "-f", container)
    daemon.docker("rmi", "-f", "committed:1", check=False)


def inspect(daemon: TestDaemon, name: str) -> dict[str, Any]:
    (document,) = json.loads(daemon.docker("image", "inspect", name).stdout)
    assert isinstance(document, dict)
    return document


def test_diff_lists_what_was_changed(daemon: TestDaemon, changed: str) -> None:
    assert daemon.docker("diff", changed).stdout == DIFF


def test_an_untouched_container_has_no_diff_and_adds_no_layer(
    daemon: TestDaemon, committed: str
) -> None:
    daemon.docker("create", "--name", "untouched", "busybox")
    try:
        assert not daemon.docker("diff", "untouched").stdout
        daemon.docker("commit", "untouched", committed)
        assert inspect(daemon, committed)["RootFS"] == inspect(daemon, "busybox")["RootFS"]
        history = daemon.docker("history", "--format", "{{.CreatedBy}} {{.Size}}", committed)
        assert history.stdout.splitlines()[0] == "sh 0B"
    finally:
        daemon.docker("rm", "untouched")


def test_a_committed_image_shows_what_the_container_showed(
    daemon: TestDaemon, changed: str, committed: str
) -> None:
    daemon.docker("commit", "-a", "Ann", "-m", "why", changed, committed)
    document = inspect(daemon, committed)
    assert (document["Author"], document["Comment"]) == ("Ann", "why")
    assert document["Parent"] == inspect(daemon, "busybox")["Id"]
    assert document["Config"]["Labels"] == {"x": "y"}
    assert document["Config"]["Env"][0] == "A=1"
    assert not document["Config"].get("Hostname")  # older clients are shown an empty one
    script = "cat /new/f /usr/k /var; ls /etc /usr; stat -c %a /home; readlink /lnk; ls -l /hard"
    shown = daemon.docker("run", "--rm", committed, "sh", "-c", script).stdout
    assert shown.startswith("hi\nx\nz\n")
    assert "group" not in shown
    assert "700\na\n-rw-r--r--    2 root" in shown
    (top,) = json.loads(f"[{_first_history_line(daemon, committed)}]")
    assert (top["Comment"], top["CreatedBy"][:6]) == ("why", "sh -c ")


def _first_history_line(daemon: TestDaemon, name: str) -> str:
    lines = daemon.docker("history", "--no-trunc", "--format", "{{json .}}", name).stdout
    return lines.split("\n")[0]


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a"]', "Cmd", ["a"]),
        ("CMD foo bar", "Cmd", ["/bin/sh", "-c", "foo bar"]),
        ('ENTRYPOINT ["e"]', "Cmd", None),
        ("ENV A=9 B=$A:/x", "Env", ["A=9", PATH, "B=1:/x"]),
        ("EXPOSE 80-81/udp", "ExposedPorts", {"80/udp": {}, "81/udp": {}}),
        ("LABEL q=w", "Labels", {"q": "w", "x": "y"}),
        ("ONBUILD RUN x", "OnBuild", ["RUN x"]),
        ("USER u", "User", "u"),
        ("VOLUME /v", "Volumes", {"/v": {}}),
        ("WORKDIR rel", "WorkingDir", "/rel"),
        ("HEALTHCHECK --interval=5s CMD true", "Healthcheck",
         {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}),
    ],
)  # fmt: skip
def test_changes(
    daemon: TestDaemon, changed: str, committed: str, change: str, field: str, value: object
) -> None:
    daemon.docker("commit", "--change", change, changed, committed)
    assert inspect(daemon, committed)["Config"].get(field) == value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--change", "RUN x", "changed"), "RUN is not a valid change command"),
        (("--change", 'SHELL ["x"]', "changed"), "SHELL is not a valid change command"),
        (("--change", "", "changed"), "file with no instructions"),
        (("nosuch",), "No such container: nosuch"),
        (("changed", "UPPER"), r"repository name (\(library/UPPER\) )?must be lowercase"),
        (("changed", "sha256"), "refusing to create an ambiguous tag using digest algorithm"),
    ],
)
@pytest.mark.usefixtures("changed")
def test_what_is_refused(daemon: TestDaemon, arguments: tuple[str, ...], said: str) -> None:
    before = daemon.docker("images", "-aq").stdout
    result = daemon.docker("commit", *arguments, check=False)
    assert result.returncode == 1
    assert re.search(said, result.stderr)
    assert daemon.docker("images", "-aq").stdout == before


def test_a_running_container_is_paused_meanwhile(daemon: TestDaemon, committed: str) -> None:
    daemon.docker("run", "-d", "--name", "busy", "busybox", "sleep", "600")
    try:
        daemon.docker("exec", "busy", "sh", "-c", "echo 1 >/one")
        daemon.docker("commit", "busy", committed)
        assert actions(daemon, "busy")[-3:] == ["pause", "unpause", "commit"]
        assert daemon.docker("inspect", "-f", "{{.State.Status}}", "busy").stdout == "running\n"
        daemon.docker("commit", "--pause=false", "busy")
        assert actions(daemon, "busy")[-3:] == ["unpause", "commit", "commit"]
        assert daemon.docker("run", "--rm", committed, "cat", "/one").stdout == "1\n"
    finally:
        daemon.docker("rm", "-f", "busy")
        for image in daemon.docker("images", "-q", "--filter", "dangling=true").stdout.split():
            daemon.docker("rmi", image)


def actions(daemon: TestDaemon, container: str) -> list[str]:
    """Return what happened to a container until now."""
    span = ("--since", "2001-01-01", "--until", str(int(time.time()) + 1))
    command = ("events", "--filter", f"container={container}", *span, "--format", "{{.Action}}")
    return daemon.docker(*command).stdout.split()


@pytest.mark.parametrize("is_running", [False, True])
def test_export(daemon: TestDaemon, tmp_path: Path, *, is_running: bool) -> None:
    command = "echo hi >/f; rm -r /home; touch /vol/in; exec sleep 600"
    options = ("-d", "--name", "exporting", "-v", "/vol", "--tmpfs", "/scratch")
    daemon.docker("run", *options, "busybox", "sh", "-c", command)
    try:
        daemon.docker("exec", "exporting", "sh", "-c", "until test -e /vol/in; do :; done")
        if not is_running:
            daemon.docker("kill", "exporting")
        daemon.docker("export", "-o", str(tmp_path / "root.tar"), "exporting")
        with tarfile.open(tmp_path / "root.tar") as archive:
            names = archive.getnames()
            content = archive.extractfile("f")
            assert content is not None
            assert content.read() == b"hi\n"
        assert {".dockerenv", "bin/sh", "dev", "etc/hosts", "proc", "vol"} <= set(names)
        assert not {"home", "vol/in", ".", "dev/null", "proc/1"} & set(names)
    finally:
        daemon.docker("rm", "-fv", "exporting")


def test_what_was_exported_can_be_imported(
    daemon: TestDaemon, changed: str, committed: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "root.tar")
    daemon.docker("export", "-o", path, changed)
    daemon.docker("import", "-m", "from tar", "-c", "CMD sh", path, committed)
    assert daemon.docker("run", "--rm", committed, "cat", "/new/f").stdout == "hi\n"
    assert inspect(daemon, committed)["Comment"] == "from tar"


def test_our_own_commands(daemon: TestDaemon, changed: str, committed: str, tmp_path: Path) -> None:
    assert daemon.cais("diff", changed).stdout == DIFF
    made = daemon.cais("commit", "-m", "why", "-c", "ENV B=2", changed, committed).stdout.strip()
    document = inspect(daemon, committed)
    assert (document["Id"], document["Comment"]) == (made, "why")
    assert "B=2" in document["Config"]["Env"]
    daemon.cais("export", "-o", str(tmp_path / "ours"), changed)
    daemon.docker("export", "-o", str(tmp_path / "dockers"), changed)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "dockers").read_bytes()
    refused = daemon.cais("commit", "nosuch", check=False)
    assert (refused.returncode, "No such container: nosuch" in refused.stderr) == (1, True)
