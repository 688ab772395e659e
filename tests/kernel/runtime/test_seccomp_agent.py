"""Kernel tests of SCMP_ACT_NOTIFY: what the agent is told, and that its answers are obeyed.

Spec: OCI runtime-spec 1.2, config-linux.md "Seccomp", "The Container Process State".
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import struct
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest
from peers import BOTH, Peer
from probes import write_probe

from cais.errors import UnsupportedError
from cais.linux import process
from cais.runtime.channel import Channel
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated
from cais.testing.nursery import nursery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.runtime.launch import Running

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs of x86-64")

FCHDIR = 81
ANSWER = 99
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND


class Agent:
    """A process that answers every notification of the listeners it gets with ANSWER."""

    def __init__(self, directory: Path, *, hangs_up: bool = False) -> None:
        self._hangs_up = hangs_up
        self.path = directory / "agent.sock"
        self.notes = directory / "agent.json"

    def __enter__(self) -> Self:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen(8)
        self._pid = os.fork()
        if self._pid == 0:
            self._serve(listener)
        listener.close()
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def told(self) -> list[dict[str, Any]]:
        """Return the states that came, each with ``count``, the descriptors beside it."""
        return [note for note in self._notes() if "fds" in note]

    def closed(self) -> int:
        """Return how many connections were closed behind their state."""
        return sum("closed" in note for note in self._notes())

    def _notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def _note(self, text: bytes, count: int) -> None:
        with self.notes.open("a") as notes:
            notes.write(json.dumps({**json.loads(text), "count": count}) + "\n")

    def _serve(self, listener: socket.socket) -> NoReturn:
        try:
            while True:
                connection, _ = listener.accept()
                text, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
                self._note(text, len(fds))
                if self._hangs_up:
                    connection.close()
                if os.fork() == 0:
                    _answer(fds[0])
                os.close(fds[0])
                if not self._hangs_up:
                    assert connection.recv(1) == b""  # one state each; runc 1.1 keeps it open
                    self._note(b'{"closed": true}', 0)
        finally:
            os._exit(1)


def _answer(listener_fd: int) -> NoReturn:
    try:
        while True:
            request = bytearray(80)
            fcntl.ioctl(listener_fd, _RECEIVE, request)
            (identity,) = struct.unpack_from("Q", request)
            fcntl.ioctl(listener_fd, _SEND, struct.pack("QqiI", identity, 0, -ANSWER, 0))
    finally:
        os._exit(0)  # the last process under the filter is gone


def notifying(agent: Agent, *names: str, **members: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(agent.path),
        "syscalls": [{"names": [*names], "action": "SCMP_ACT_NOTIFY"}],
        **members,
    }


def with_agent(tmp_path: Path, body: Callable[[Agent, Bundle], None]) -> None:
    def run() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        write_probe(bundle.rootfs / "probe", FCHDIR, -1)
        with Agent(tmp_path) as agent:
            body(agent, bundle)

    # The processes that answer end when their filters do, a moment later than the body.
    isolated(run, leftovers=False)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_the_agent_gets_the_listener_and_the_state(
    tmp_path: Path, name: str, *, no_new_privileges: bool
) -> None:
    # oci: linux.seccomp.listenerPath, .listenerMetadata
    def body(agent: Agent, bundle: Bundle) -> None:
        bundle.config["annotations"] = {"org.example.key": "value"}
        bundle.process["noNewPrivileges"] = no_new_privileges
        bundle.linux["seccomp"] = notifying(agent, "fchdir", listenerMetadata="opaque")
        peer = Peer(name, bundle, tmp_path)
        assert peer.run("/probe", ok=False).returncode == ANSWER
        (told,) = agent.told()
        assert (told["fds"], told["count"]) == (["seccompFd"], 1)
        assert told["ociVersion"].startswith("1.")
        assert told["metadata"] == "opaque"
        assert told["pid"] == told["state"]["pid"] > 1
        expected = {"id": peer.id, "status": "creating", "bundle": str(bundle.path)}
        expected["annotations"] = {"org.example.key": "value"}  # type: ignore[assignment]
        assert {key: told["state"].get(key) for key in expected} == expected

    with_agent(tmp_path, body)


@pytest.mark.parametrize("has_nursery", [False, True])
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_an_exec_has_a_listener_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, no_new_privileges: bool, has_nursery: bool
) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        bundle.process["noNewPrivileges"] = no_new_privileges
        bundle.linux["seccomp"] = notifying(agent, "fchdir")
        with kept(has_nursery), Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            if has_nursery:
                monkeypatch.delattr(process, "clone")  # it is not the caller that is cloned
            running = bundle.start_exec(init, "/probe", stdio=capture.stdio)
            pid = running.pid
            assert end(running) == ANSWER
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()
        first, second = agent.told()
        assert agent.closed() >= 1  # the agent may not have come to the second
        assert (first["pid"], first["state"]["status"]) == (init.pid, "creating")
        assert (second["pid"], second["state"]["status"]) == (pid, "running")
        assert second["state"]["pid"] == init.pid
        assert second["state"]["bundle"] == str(bundle.path)

    with_agent(tmp_path, body)


@pytest.mark.parametrize("has_nursery", [False, True])
def test_a_process_born_in_anothers_pid_namespace_has_a_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_nursery: bool
) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        with kept(has_nursery), neighbour(tmp_path) as init, Capture() as capture:
            bundle.join("pid", f"/proc/{init.pid}/ns/pid")
            bundle.linux["seccomp"] = notifying(agent, "fchdir")
            if has_nursery:
                monkeypatch.delattr(process, "clone")  # it is not the caller that is cloned
            running = bundle.start("/probe", stdio=capture.stdio)
            pid = running.pid
            assert end(running) == ANSWER
            bundle.destroy()
        (told,) = agent.told()
        assert told["pid"] == told["state"]["pid"] == pid
        assert told["state"]["status"] == "creating"

    with_agent(tmp_path, body)


def test_what_is_born_there_has_one_listener_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour with CAP_SYS_PTRACE may speak for it; its descriptors are none of the agent's."""

    def say_more(line: Channel) -> None:
        line.say({"listener": 0})
        line.wait_for_word()

    def body(agent: Agent, bundle: Bundle) -> None:
        with neighbour(tmp_path) as init:
            bundle.join("pid", f"/proc/{init.pid}/ns/pid")
            bundle.linux["seccomp"] = notifying(agent, "fchdir")
            monkeypatch.setattr(Channel, "say_ready", say_more)
            with pytest.raises(LaunchError, match="a message nobody knows"):
                bundle.run("true")
        assert len(agent.told()) == 1

    with_agent(tmp_path, body)


@pytest.mark.parametrize("has_nursery", [False, True])
def test_there_the_steps_behind_the_filter_may_be_notified_too(
    tmp_path: Path, *, has_nursery: bool
) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        with kept(has_nursery), neighbour(tmp_path) as init:
            bundle.join("pid", f"/proc/{init.pid}/ns/pid")
            bundle.linux["seccomp"] = notifying(agent, "capset", "fchdir")
            with pytest.raises(LaunchError, match=os.strerror(ANSWER).lower()):
                bundle.run("/probe")

    with_agent(tmp_path, body)


def kept(has_nursery: bool) -> AbstractContextManager[object]:
    return nursery() if has_nursery else nullcontext()


@contextmanager
def neighbour(tmp_path: Path) -> Iterator[Running]:
    """Run a container that another joins."""
    (tmp_path / "neighbour").mkdir()
    bundle = Bundle(tmp_path / "neighbour", "neighbour")
    with Capture() as capture:
        init = bundle.start("sleep", "60", stdio=capture.stdio)
        yield init
        os.kill(init.pid, signal.SIGKILL)
        end(init)
    bundle.destroy()


def test_the_command_tells_the_bundle_of_an_exec(tmp_path: Path) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        bundle.linux["seccomp"] = notifying(agent, "fchdir")
        bundle.process["args"] = ["sleep", "60"]
        peer = Peer("cais", bundle, tmp_path)
        peer.create()
        peer("start", peer.id)
        assert peer("exec", peer.id, "/probe", ok=False).returncode == ANSWER
        peer("delete", "--force", peer.id)
        assert [told["state"]["bundle"] for told in agent.told()] == [str(bundle.path)] * 2

    with_agent(tmp_path, body)


def test_an_agent_may_hang_up_as_soon_as_it_was_told(tmp_path: Path) -> None:
    def run() -> None:
        bundle = Bundle(tmp_path)
        write_probe(bundle.rootfs / "probe", FCHDIR, -1)
        with Agent(tmp_path, hangs_up=True) as agent:
            bundle.linux["seccomp"] = notifying(agent, "fchdir")
            for _ in range(8):
                assert bundle.run("/probe").code == ANSWER
            assert len(agent.told()) == 8

    isolated(run, leftovers=False)


def test_a_killable_wait(tmp_path: Path) -> None:
    # oci: linux.seccomp.flags[WAIT_KILLABLE_RECV]
    def body(agent: Agent, bundle: Bundle) -> None:
        flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
        bundle.linux["seccomp"] = notifying(agent, "fchdir", flags=flags)
        assert bundle.run("/probe").code == ANSWER

    with_agent(tmp_path, body)


def test_the_steps_behind_the_filter_may_be_notified_too(tmp_path: Path) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        # The container's process makes this call itself once its filter is loaded.
        bundle.linux["seccomp"] = notifying(agent, "capset", "fchdir")
        with pytest.raises(LaunchError, match=os.strerror(ANSWER).lower()):
            bundle.run("/probe")

    with_agent(tmp_path, body)


def test_an_exec_that_would_wait_for_nobody_is_refused(tmp_path: Path) -> None:
    def body(agent: Agent, bundle: Bundle) -> None:
        bundle.process["noNewPrivileges"] = True
        bundle.linux["seccomp"] = notifying(agent, "clone")
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            with pytest.raises(UnsupportedError, match="SCMP_ACT_NOTIFY on clone"):
                bundle.start_exec(init, "true", stdio=capture.stdio)
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()

    with_agent(tmp_path, body)


def test_without_an_agent_nothing_is_left(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (tmp_path / "agent.sock").touch()
        bundle.linux["seccomp"] = notifying(Agent(tmp_path), "fchdir")
        with pytest.raises(LaunchError, match="connection refused") as failed:
            bundle.run("true")
        assert failed.value.errno == errno.ECONNREFUSED

    isolated(body)
