"""Our own command line against our own daemon: the same words, the same codes as docker's."""

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cais.testing.daemon import BIN, TestDaemon


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--rm", "busybox", "echo", "hi"),
        ("run", "--rm", "busybox", "sh", "-c", "exit 3"),
        ("run", "--rm", "busybox", "no-such-program"),
        ("run", "--rm", "busybox", "/etc"),
        ("run", "-m", "1m", "busybox"),
        ("run", "-m", "xx", "busybox"),
        ("run",),
        ("run", "--no-such-flag", "busybox"),
        ("logs", "nosuch"),
        ("ps", "-q"),
        ("images", "--format", "{{.Repository}}:{{.Tag}}"),
        ("inspect", "nosuch"),
        ("rm", "nosuch"),
        ("version", "--format", "{{.Server.Version}}"),
        ("network", "ls", "-q", "--no-trunc"),
    ],
)
def test_agrees_with_docker(
    daemon: TestDaemon, docker_major: int, arguments: tuple[str, ...]
) -> None:
    theirs = daemon.docker(*arguments, check=False)
    ours = daemon.cais(*arguments, check=False)
    if arguments[-1] != "/etc" or docker_major > 20:  # which has 125 for a directory
        assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)
    assert ours.stdout == theirs.stdout
    if docker_major == 28:  # others word their messages otherwise
        assert _first_line(ours.stderr) == _first_line(theirs.stderr).replace("docker", "cais")


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()


def test_tables_agree_with_docker(daemon: TestDaemon, docker_major: int) -> None:
    daemon.cais("run", "-d", "--name", "row", "busybox", "sleep", "600")
    try:
        for command in (("ps",), ("images",), ("ps", "--format", "table {{.Names}}\t{{.Image}}")):
            if command == ("images",) and docker_major >= 29:
                continue  # which has other columns
            ours, theirs = _in_one_second(daemon, command)
            assert ours == theirs, command
        for template in ("{{.State.Status}}", "{{json .Config.Cmd}}", "{{.Config.Env}}"):
            ours = daemon.cais("inspect", "-f", template, "row").stdout
            assert ours == daemon.docker("inspect", "-f", template, "row").stdout
        if docker_major >= 28:  # older ones leave out fields they do not know
            assert json.loads(daemon.cais("inspect", "row").stdout) == json.loads(
                daemon.docker("inspect", "row").stdout
            )
    finally:
        daemon.cais("rm", "-f", "row")


def _in_one_second(daemon: TestDaemon, command: tuple[str, ...]) -> tuple[str, str]:
    """What both print while no age in it ("Up 2 seconds") changes, nor a column's width with it."""
    while True:
        before, theirs = daemon.cais(*command).stdout, daemon.docker(*command).stdout
        if daemon.cais(*command).stdout == before:
            return before, theirs


def test_life_of_a_container(daemon: TestDaemon) -> None:
    name = "ours"
    daemon.cais("create", "--name", name, "-i", "busybox", "sh")
    assert (
        daemon.cais("start", "-ai", name, stdin="echo from stdin; exit 6", check=False).returncode
        == 6
    )
    assert daemon.cais("logs", name).stdout == "from stdin\n"
    daemon.cais("rename", name, "renamed")
    assert daemon.cais("wait", "renamed").stdout == "6\n"
    daemon.cais("rm", "renamed")


def test_cidfile(daemon: TestDaemon, tmp_path: Path) -> None:
    path = tmp_path / "cid"
    daemon.cais("run", "--rm", "--cidfile", str(path), "busybox", "true")
    assert re.fullmatch("[0-9a-f]{64}", path.read_text())
    again = daemon.cais("run", "--rm", "--cidfile", str(path), "busybox", "true", check=False)
    assert again.returncode == 125
    assert "container ID file found" in again.stderr
    failed = daemon.cais("run", "--cidfile", str(tmp_path / "other"), "nosuch", check=False)
    assert failed.returncode == 125
    assert not (tmp_path / "other").exists()


def test_a_registry_that_does_not_answer(daemon: TestDaemon) -> None:
    for words in (("pull", "localhost:1/x:1"), ("run", "localhost:1/x:1")):
        result = daemon.cais(*words, check=False)
        assert result.returncode == (1 if words[0] == "pull" else 125)
        assert 'Get "http://localhost:1/v2/": dial tcp: connect: connection ref' in result.stderr


def test_save_load_import_and_tag(daemon: TestDaemon, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    daemon.cais("tag", "busybox", "ours:1")
    daemon.cais("save", "-o", str(path), "ours:1")
    assert "Untagged: ours:1" in daemon.cais("rmi", "ours:1").stdout
    assert daemon.cais("load", "-i", str(path)).stdout == "Loaded image: ours:1\n"
    assert daemon.cais("history", "-q", "ours:1").stdout
    daemon.cais("rmi", "ours:1")


def test_bootstrap_makes_an_image_without_a_registry(daemon: TestDaemon) -> None:
    daemon.docker("tag", "busybox", "kept:1")
    try:
        made = daemon.cais("image", "bootstrap", "busybox")
        assert made.stdout.endswith("Loaded image: busybox:latest\n")
        assert daemon.cais("run", "--rm", "busybox", "echo", "it runs").stdout == "it runs\n"
        unknown = daemon.cais("image", "bootstrap", "plan9", check=False)
        assert unknown.returncode == 1
        assert "cannot bootstrap 'plan9'" in unknown.stderr
    finally:
        daemon.cais("tag", "kept:1", "busybox")
        daemon.cais("rmi", "kept:1")
        daemon.cais("image", "prune", "-f")


def start_by_itself(
    daemon: TestDaemon, data_root: Path, exec_root: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run ``cais`` where nothing listens yet, in the namespaces of ``daemon``."""
    roots = ("--data-root", str(data_root), "--exec-root", str(exec_root))
    environment = dict(os.environ)
    for name in ("DOCKER_HOST", "CAIS_HOST"):
        environment.pop(name, None)
    command = [*daemon.enter_namespaces, str(BIN / "cais"), *roots, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_several_commands_start_one_daemon(daemon: TestDaemon, tmp_path: Path) -> None:
    def info(_: int) -> subprocess.CompletedProcess[str]:
        chosen = ("info", "-f", "{{.DockerRootDir}} {{.ID}}")
        return start_by_itself(daemon, tmp_path / "d", tmp_path / "e", *chosen)

    before = set(daemon.processes())
    try:
        with ThreadPoolExecutor(5) as pool:
            results = list(pool.map(info, range(5)))
        assert not [result.stderr for result in results if result.returncode]
        (said,) = {result.stdout for result in results}
        assert said.split()[0] == str(tmp_path / "d")
        started = {pid: line for pid, line in daemon.processes().items() if pid not in before}
        assert sum("caisd" in line for line in started.values()) == 1
    finally:
        for pid in set(daemon.processes()) - before:
            daemon.run_inside(["kill", "-9", str(pid)], check=False)


def test_a_daemon_that_cannot_start_says_why(daemon: TestDaemon, tmp_path: Path) -> None:
    result = start_by_itself(daemon, daemon.data_root, tmp_path / "e", "ps")
    assert result.returncode == 1
    assert "caisd ended with status" in result.stderr
    assert str(daemon.data_root) in result.stderr
    assert "Traceback" not in result.stderr


def test_never_starts_one_elsewhere(tmp_path: Path) -> None:
    for host in (f"unix://{tmp_path}/nobody.sock", "tcp://127.0.0.1:9"):
        environment = {**os.environ, "DOCKER_HOST": host}
        environment.pop("CAIS_HOST", None)
        result = subprocess.run(
            [BIN / "cais", "ps"], env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 1
        assert host in result.stderr
        assert not list(tmp_path.iterdir())
