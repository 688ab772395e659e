"""Bad input gets Docker's messages and codes, never a traceback, never a hang."""

# ruff: noqa: E501 - messages and archives stand on one line each

import re
import socket

import pytest

from cais.testing.daemon import TestDaemon


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "--pull", "never", "nosuch"), 125, "No such image: nosuch:latest"),
        (("run", "--name", "bad name", "busybox"), 125, r"Invalid container name \(bad name\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed"),
        (("run", "-m", "1m", "busybox"), 125, "Minimum memory limit allowed is 6MB"),
        (("run", "-m", "much", "busybox"), 125, "invalid size: 'much'"),
        (("run", "--network", "nosuch", "busybox"), 125, "network nosuch not found"),
        (("run", "--cap-add", "NOSUCH", "busybox"), 125, "(?i)invalid cap"),
        (("run", "--entrypoint", "", "busybox", ""), 127, "executable file not found|no such file"),
        (("run", "-w", "relative", "busybox"), 125, "the working directory 'relative' is invalid, it needs to be an absolute path"),
        (("run", "-v", "relative/path:/x", "busybox"), 125, "includes invalid characters for a local volume name"),
        (("run", "--restart", "sometimes", "busybox"), 125, "invalid restart policy"),
        (("run", "--cpus", "4096", "busybox"), 125, "(?i)range of CPUs is from 0.01 to"),
        (("run", "--ulimit", "nofile=9:5", "busybox"), 125, "ulimit soft limit must be less than or equal to hard limit"),
        (("run", "--tmpfs", "relative", "busybox"), 125, "(?i)invalid mount|must be an absolute|mount path must be absolute"),
        (("logs", "nosuch"), 1, "No such container: nosuch"),
        (("exec", "nosuch", "true"), 1, "No such container: nosuch"),
        (("stop", "nosuch"), 1, "No such container: nosuch"),
        (("rm", "nosuch"), 1, "No such container: nosuch"),
        (("rmi", "nosuch"), 1, "No such image: nosuch"),
        (("inspect", "nosuch"), 1, "(?i)no such object: nosuch"),
        (("tag", "nosuch", "other"), 1, "No such image: nosuch"),
        (("volume", "inspect", "nosuch"), 1, "(?i)no such volume"),
        (("network", "inspect", "nosuch"), 1, "(?i)network nosuch not found|no such network: nosuch"),
        (("wait", "nosuch"), 1, "No such container: nosuch"),
        (("kill", "-s", "NOSUCH", "nosuch"), 1, "(?i)no such container|invalid signal"),
        (("image", "inspect", "--platform", "linux/s390x", "busybox"), 1, r"image with reference busybox was found but does not provide the specified platform \(linux/s390x\)"),
        (("history", "--platform", "linux/s390x", "busybox"), 1, r"does not provide the specified platform \(linux/s390x\)"),
        (("save", "--platform", "linux/s390x", "busybox"), 1, r"does not provide the specified platform \(linux/s390x\)"),
        (("images", "--filter", "reference=["), 1, "syntax error in pattern"),
        (("run", "-u", "-1", "busybox"), 125, "daemon: uids and gids must be in range 0-2147483647"),
        (("run", "--group-add", "-1", "busybox"), 125, "daemon: uids and gids must be in range 0-2147483647"),
        (("run", "-w", "/etc/passwd", "busybox"), 125, "daemon: Cannot mkdir: /etc/passwd is not a directory"),
        (("run", "-v", "/etc/passwd:/bin", "busybox"), 125, r'error mounting "/etc/passwd" to rootfs at "/bin": .*: not a directory: unknown: Are you trying to mount a directory onto a file \(or vice-versa\)\? Check if'),
        (("run", "-v", "/etc:/etc/passwd", "busybox"), 125, r'error mounting "/etc" to rootfs at "/etc/passwd": .*: not a directory: unknown: Are you trying to mount a directory onto a file \(or vice-versa\)\? Check if'),
        (("run", "--sysctl", "net.ipv4.nosuch=1", "busybox"), 127, "open /proc/sys/net/ipv4/nosuch: no such file or directory"),
        (("run", "--log-opt", "compress=true", "busybox"), 125, "compress cannot be true when max-file is less than 2 or max-size is not set"),
        (("run", "--ip", "999.2.3.4", "busybox"), 125, 'invalid IPv4 address: 999.2.3.4|failed to parse IP: "999.2.3.4"'),
    ],
)  # fmt: skip
def test_refusals(
    daemon: TestDaemon, docker_major: int, arguments: tuple[str, ...], code: int, said: str
) -> None:
    if "--ip" in arguments and docker_major < 26:
        pytest.skip("this docker CLI keeps the address to itself")
    result = daemon.docker(*arguments, check=False)
    if "unknown flag: --platform" in result.stderr:
        pytest.skip("this docker CLI is older than the flag")
    try:
        assert re.search(said, result.stderr), result.stderr
        assert result.returncode == code
        assert "Traceback" not in result.stderr
        assert not daemon.docker("ps", "-aq", "--filter", "status=running").stdout
    finally:
        if left := daemon.docker("ps", "-aq").stdout.split():
            daemon.docker("rm", "-f", *left)


def test_names_are_unique(daemon: TestDaemon) -> None:
    daemon.docker("create", "--name", "taken", "busybox")
    try:
        result = daemon.docker("create", "--name", "taken", "busybox", check=False)
        assert result.returncode == 1
        assert re.search(
            r'Conflict\. The container name "/taken" is already in use by container "[0-9a-f]{64}"\. '
            r"You have to remove \(or rename\) that container to be able to reuse that name\.",
            result.stderr,
        )
    finally:
        daemon.docker("rm", "taken")


def test_an_image_without_a_command(daemon: TestDaemon) -> None:
    rootless = daemon.docker("import", "-", "nothing", stdin=b"\0" * 10240)
    try:
        result = daemon.docker("run", "--rm", "nothing", check=False)
        assert result.returncode == 125
        assert "no command specified" in result.stderr.lower()
    finally:
        daemon.docker("rmi", rootless.stdout.strip())


def test_states_forbid(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "up", "busybox", "sleep", "600")
    try:
        removal = daemon.docker("rm", "up", check=False)
        assert re.search(
            r"cannot remove container .*: container is running", removal.stderr, re.IGNORECASE
        )
        used = daemon.docker("rmi", "busybox", check=False)
        assert "conflict: unable to " in used.stderr
        assert daemon.docker("start", "up").returncode == 0
        daemon.docker("stop", "-t", "0", "up")
        assert "is not running" in daemon.docker("exec", "up", "true", check=False).stderr
        assert "is not running" in daemon.docker("kill", "up", check=False).stderr
        assert daemon.docker("stop", "up").returncode == 0
    finally:
        daemon.docker("rm", "-f", "up")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1.44/swarm", 501), ("/v1.44/plugins", 501), ("/v1.44/no-such-thing", 404)],
)
def test_other_routes_answer_clearly(daemon: TestDaemon, path: str, status: int) -> None:
    answer = exchange(
        daemon, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b'"message"' in answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2\3" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1.44/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{garbage]",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1.44/containers/%2e%2e%2f%2e%2e/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)  # fmt: skip
def test_garbage_on_the_socket(daemon: TestDaemon, data: bytes) -> None:
    answer = exchange(daemon, data)
    assert not answer or re.match(rb"HTTP/1\.[01] (301|4\d\d|505) ", answer), answer[:200]
    assert b"Traceback" not in answer
    assert daemon.docker("ps", "-q").returncode == 0


def test_version_negotiation(daemon: TestDaemon) -> None:
    def status(version: str) -> bytes:
        request = (
            f"GET /v{version}/containers/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        return exchange(daemon, request.encode())

    assert b" 200 " in status("1.24")[:20]
    assert b" 200 " in status("1.51")[:20]
    too_new, too_old = status("1.99"), status("1.20")
    assert b" 400 " in too_new[:20]
    assert b"client version 1.99 is too new. Maximum supported API version is 1.51" in too_new
    assert b" 400 " in too_old[:20]
    assert b"client version 1.20 is too old" in too_old


def exchange(daemon: TestDaemon, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(daemon.socket_path))
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except ConnectionError:
            pass
    return answer
