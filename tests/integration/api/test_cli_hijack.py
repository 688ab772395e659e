"""The real docker CLI's hijacked connections against the API, with a fake container behind."""

import hashlib
import os
import struct
import subprocess
import threading
from typing import Any

from cais.engine.errors import CommandLaunchError
from cais.errors import ConflictError
from cais.testing.fake_engine import CONTAINER_ID, FakeWaitResult, container_document
from cais.testing.pseudoterminal import PseudoTerminal
from cais.testing.waiting import PATIENCE_S, wait_until


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def ended(served: Any, code: int) -> None:
    """Let whoever waits for the container know that it ended."""
    for wait in served.waits:
        served.in_loop(lambda wait=wait: wait.done() or wait.set_result(FakeWaitResult(code)))


def test_run_attached_shows_both_streams_and_the_exit_code(served: Any) -> None:
    docker = served.docker("run", "busybox", "sh", stdin=subprocess.DEVNULL)
    session = served.sessions.get(timeout=PATIENCE_S)
    session.peer.sendall(frame(1, b"out\n") + frame(2, b"err\n"))
    session.peer.close()
    _wait_for(served, "lifecycle.start")
    ended(served, 3)
    assert docker.communicate(timeout=PATIENCE_S) == (b"out\n", b"err\n")
    assert docker.returncode == 3
    assert served.arguments("streams.attach")["stdout"] is True
    assert served.arguments("lifecycle.wait")["1"] == "next-exit"


def test_run_i_passes_the_end_of_input_and_keeps_the_output(served: Any) -> None:
    docker = served.docker("run", "-i", "busybox", "cat")
    session = served.sessions.get(timeout=PATIENCE_S)
    docker.stdin.write(b"hello")
    docker.stdin.close()
    received = b""
    while data := session.peer.recv(100):
        received += data
    assert received == b"hello"
    session.peer.sendall(frame(1, received.upper()))
    session.peer.close()
    _wait_for(served, "lifecycle.start")
    ended(served, 0)
    assert docker.stdout.read() == b"HELLO"
    assert docker.wait(PATIENCE_S) == 0
    docker.stdout.close()
    docker.stderr.close()


def test_filter_of_200_mb_loses_nothing(served: Any) -> None:
    served.answers["containers.inspect"] = container_document()
    docker = served.docker("run", "-i", "busybox", "cat")
    session = served.sessions.get(timeout=PATIENCE_S)
    block = os.urandom(1 << 20)
    total = 200

    def feed() -> None:
        for _ in range(total):
            docker.stdin.write(block)
        docker.stdin.close()

    def echo() -> None:
        while data := session.peer.recv(1 << 17):
            session.peer.sendall(frame(1, data))
        session.peer.close()

    threads = [threading.Thread(target=work) for work in (feed, echo)]
    for thread in threads:
        thread.start()
    digest, size = hashlib.sha256(), 0
    while data := docker.stdout.read(1 << 18):
        digest.update(data)
        size += len(data)
        if size == total << 20:
            ended(served, 0)
    for thread in threads:
        thread.join()
    assert docker.wait(PATIENCE_S) == 0
    assert digest.digest() == hashlib.sha256(block * total).digest()
    docker.stdout.close()
    docker.stderr.close()


def test_detach_keys_leave_a_terminal(served: Any) -> None:
    served.tty = True
    served.detach_keys = b"\x10\x11"
    served.answers["containers.inspect"] = container_document(tty=True)
    with PseudoTerminal(["docker", "attach", "fake"], served.environment) as terminal:
        session = served.sessions.get(timeout=PATIENCE_S)
        session.peer.sendall(b"prompt$ ")
        terminal.expect(r"prompt\$ ")
        terminal.send("l")
        assert session.peer.recv(10) == b"l"
        terminal.send("\x10\x11")  # the CLI looks for them too, and just goes
        assert session.peer.recv(10) == b""
        terminal.wait()


def test_exec_that_cannot_be_launched_is_told_in_the_stream(served: Any) -> None:
    served.failures["execs.start"] = CommandLaunchError("no such program", 127)
    docker = served.docker("exec", "fake", "nosuch")
    assert docker.communicate(timeout=PATIENCE_S)[0] == b"no such program\r\n"


def test_exec_refused_is_an_error(served: Any) -> None:
    served.failures["execs.create"] = ConflictError("container fake is paused")
    docker = served.docker("exec", "fake", "true")
    _, stderr = docker.communicate(timeout=PATIENCE_S)
    assert b"Error response from daemon: container fake is paused" in stderr
    assert docker.returncode == 1


def test_client_that_is_killed_frees_its_attachment(served: Any) -> None:
    docker = served.docker("attach", "fake")
    session = served.sessions.get(timeout=PATIENCE_S)
    docker.kill()
    docker.communicate(timeout=PATIENCE_S)
    session.peer.settimeout(PATIENCE_S)
    assert session.peer.recv(1) == b""


def _wait_for(served: Any, name: str) -> None:
    wait_until(lambda: any(called == name for called, _ in served.calls), lambda: served.calls)


def test_create_sends_the_whole_configuration(served: Any) -> None:
    docker = served.docker("create", "-m", "64m", "--name", "n", "-e", "A=b", "busybox", "true")
    assert docker.communicate(timeout=PATIENCE_S)[0].decode().strip() == CONTAINER_ID
    call = served.arguments("containers.create")
    assert call["0"] == "n"
    assert call["1"].host_config.memory == 64 << 20
    assert call["1"].config.env == ["A=b"]
