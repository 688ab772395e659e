"""A forerunner that is killed before it can tell who it made: the start fails, nothing is left.

The OOM killer does so in containers of little memory. Here the forerunner ends itself instead of
saying its last word; the process it made lives on and waits, or is ended as well.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from neighbours import holder

from cais.linux.siblings import Birth
from cais.runtime import channel
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import children, isolated

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGE = "the container's first process ended while it was set up"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def kill_instead_of_telling(*, both: bool) -> None:
    """Have every forerunner of this process die when it should say whom it made."""
    say = channel.Channel.say

    def say_or_die(line: channel.Channel, message: dict[str, Any]) -> None:
        if "process" in message:
            if both:
                os.kill(message["process"], signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        say(line, message)

    channel.Channel.say = say_or_die  # type: ignore[method-assign] # the child has a copy


def check_nothing_is_left(known: set[int]) -> None:
    assert set(children()) == known


def failed_exec(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    with Capture() as capture:
        init = bundle.start("sleep", "60", stdio=capture.stdio)
        with pytest.raises(LaunchError, match=MESSAGE):
            bundle.execute(init, "true")
        check_nothing_is_left({init.pid})
        signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        end(init)
    bundle.destroy()


def failed_start_in_a_pid_namespace(tmp_path: Path) -> None:
    with holder("--pid") as pid:
        bundle = Bundle(tmp_path)
        bundle.linux["namespaces"][1]["path"] = f"/proc/{pid}/ns/pid"
        before = set(children())
        with pytest.raises(LaunchError, match=MESSAGE):
            bundle.run("true")
        check_nothing_is_left(before)


def failed_start_in_a_user_namespace(tmp_path: Path) -> None:
    with holder("--user", "--net") as pid:
        bundle = Bundle(tmp_path)
        bundle.linux["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
        before = set(children())
        with pytest.raises(LaunchError, match=MESSAGE):
            bundle.run("true")
        check_nothing_is_left(before)


@pytest.mark.parametrize("both", [False, True], ids=["its-process-lives", "both-are-killed"])
@pytest.mark.parametrize(
    "start", [failed_exec, failed_start_in_a_pid_namespace, failed_start_in_a_user_namespace]
)
def test_nothing_is_left_of_a_start_whose_forerunner_was_killed(
    tmp_path: Path, start: Callable[[Path], None], *, both: bool
) -> None:
    def body() -> None:
        kill_instead_of_telling(both=both)
        start(tmp_path)

    isolated(body)


def test_who_was_born_cannot_say_it_was_another() -> None:
    """A container with CAP_SYS_PTRACE may write to the memory of what is born inside it."""

    def body() -> None:
        birth = Birth()
        maker = os.fork()
        if maker == 0:
            birth.keep_from_children()
            if birth.clone_sibling() == 0:
                is_there = f"{birth._address:x}-" in Path("/proc/self/maps").read_text()
                os._exit(3 if is_there else 4)
            os._exit(0)
        assert os.waitpid(maker, 0)[1] == 0
        pid = birth.pid
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        birth.close()
        assert birth.pid == 0

    isolated(body)
