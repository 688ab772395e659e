"""``docker run -it`` and ``docker exec -it`` on a real terminal: typing, signals, size, detach."""

from collections.abc import Iterator

import pytest

from cais.testing.daemon import BIN, TestDaemon
from cais.testing.pseudoterminal import PseudoTerminal

CLIENTS = {"docker": "docker", "cais": str(BIN / "cais")}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return CLIENTS[request.param]


@pytest.fixture
def container(daemon: TestDaemon) -> Iterator[str]:
    daemon.docker("run", "-d", "--name", "tty", "busybox", "sleep", "600")
    yield "tty"
    daemon.docker("rm", "-f", "tty")


def terminal(
    daemon: TestDaemon, *command: str, rows: int = 24, columns: int = 80
) -> PseudoTerminal:
    return PseudoTerminal(command, daemon.environment, rows=rows, columns=columns)


def test_a_shell_answers_and_exits_with_its_code(daemon: TestDaemon, client: str) -> None:
    with terminal(daemon, client, "run", "--rm", "-it", "busybox") as screen:
        screen.expect("# ")
        screen.send("echo $((6 * 7)); tty\r")
        screen.expect(r"42\r\n/dev/(pts/0|console)")
        screen.expect("# ")
        screen.send("exit 3\r")
        assert screen.wait() == 3
    assert not daemon.docker("ps", "-aq").stdout


def test_ctrl_c_interrupts_the_program_not_the_client(daemon: TestDaemon, client: str) -> None:
    with terminal(daemon, client, "run", "--rm", "-it", "busybox") as screen:
        screen.expect("# ")
        screen.send("sh -c 'echo u''p; sleep 100'\r")
        screen.expect("up\r\n")
        screen.send("\x03")
        screen.expect("# ")
        screen.send("echo code $?\r")
        screen.expect("code 130")
        screen.expect("# ")  # only a shell that reads takes what comes now for an end of input
        screen.send("\x04")
        assert screen.wait() in (0, 130)


def test_ctrl_c_ends_a_container_with_130(daemon: TestDaemon, client: str) -> None:
    script = "trap 'exit 130' INT; echo ready; while :; do sleep 0.1; done"
    with terminal(daemon, client, "run", "--rm", "-it", "busybox", "sh", "-c", script) as screen:
        screen.expect("ready")
        screen.send("\x03")
        assert screen.wait() == 130


def test_the_window_size_is_passed_on(daemon: TestDaemon, client: str) -> None:
    with terminal(daemon, client, "run", "--rm", "-it", "busybox", rows=33, columns=111) as screen:
        screen.expect("# ")
        screen.send("stty size\r")
        screen.expect("33 111")
        screen.send("trap 'stty size' WINCH\r")
        screen.expect("# ")
        screen.resize(20, 60)
        screen.send("until stty size | grep '^20 60'; do sleep 0.05; done\r")
        screen.expect("20 60\r\n")
        screen.send("exit\r")
        screen.wait()


def test_detach_keys_let_go_and_attach_comes_back(daemon: TestDaemon, client: str) -> None:
    try:
        with terminal(daemon, client, "run", "-it", "--name", "keys", "busybox") as screen:
            screen.expect("# ")
            screen.send("\x10\x11")
            assert screen.wait() == 0
        assert daemon.docker("ps", "-q", "--filter", "name=keys").stdout
        with terminal(daemon, client, "attach", "--detach-keys", "ctrl-a,d", "keys") as screen:
            screen.send("echo back $((1 + 1))\r")
            screen.expect("back 2")
            screen.send("\x01d")
            assert screen.wait() == 1
            assert "read escape sequence" in screen.transcript
        assert daemon.docker("ps", "-q", "--filter", "name=keys").stdout
    finally:
        daemon.docker("rm", "-f", "keys")


def test_exec_on_a_terminal(daemon: TestDaemon, client: str, container: str) -> None:
    with terminal(daemon, client, "exec", "-it", container, "sh", rows=30, columns=90) as screen:
        screen.expect("# ")
        screen.send("stty size; ps\r")
        screen.expect("30 90")
        screen.expect("sleep 600")
        screen.send("exit 5\r")
        assert screen.wait() == 5


def test_without_a_terminal_it_is_refused(daemon: TestDaemon, client: str) -> None:
    result = daemon.run_client([client, "run", "-it", "busybox"], check=False)
    assert result.returncode == 1
    assert "TTY" in result.stderr
    assert not daemon.docker("ps", "-aq").stdout
