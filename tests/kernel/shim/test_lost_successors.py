"""A process that takes over from a spare and ends before its first word is missed.

The spare, held in the kernel, keeps the line open: no descriptor tells, SIGCHLD does.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cais.runtime import container as runtime
from cais.runtime import spares
from cais.runtime.launch import LaunchError
from cais.runtime.nursery import Nursery
from cais.testing.bundles import Bundle, Capture, wait
from cais.testing.isolation import cgroups_named, children, isolated
from cais.testing.shims import Session, ShimProcess
from cais.testing.waiting import until, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.runtime.launch import Launch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MESSAGE = "ended while it was set up"
_DIE_AT_BIRTH = """
from cais.runtime import channel
say = channel.Channel.say

def die_or_say(line, message):
    if "process" in message:
        os._exit(9)
    say(line, message)

channel.Channel.say = die_or_say
"""
_CODE = f"""
import os, sys
from cais.runtime import spares
from cais.shim import launcher
from cais.shim.main import main
{_DIE_AT_BIRTH}
add = spares.add

def add_and_tell(spare):
    add(spare)
    os.close(os.open(MARK, os.O_CREAT))

spares.add = add_and_tell
launcher.execute_sealed = lambda args: None
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def begun(bundle: Bundle) -> Iterator[tuple[Launch, int]]:
    """A start that has taken a spare, and the spare's pid."""
    keeper = Nursery()
    coming = keeper.order()
    coming.wait()
    spare = coming.admit()
    spares.add(spare)
    bundle.save()
    with Capture() as capture:
        yield runtime.begin(bundle.id, str(bundle.path), stdio=capture.stdio), spare.pid
    assert spares.count() == 0
    keeper.close()
    assert not list(children())


def test_its_start_finds_out_when_it_is_asked(tmp_path: Path) -> None:
    def body() -> None:
        exec(_DIE_AT_BIRTH, {"os": os})  # the nursery has a copy
        bundle = Bundle(tmp_path)
        with begun(bundle) as (launch, _):
            wait_until(launch.is_deserted)
            with pytest.raises(LaunchError, match=MESSAGE):
                launch.advance()
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_one_that_has_spoken_is_heard_first(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with begun(bundle) as (launch, spare_pid):
            assert select.select([launch], [], [], 60)[0]
            (born,) = launch.children - {spare_pid}
            os.kill(born, signal.SIGKILL)
            os.waitid(os.P_PID, born, os.WEXITED | os.WNOWAIT)
            assert not launch.is_deserted()
            with pytest.raises(LaunchError, match=MESSAGE):
                wait(launch)
        assert not cgroups_named(bundle.id)

    isolated(body)


def test_the_shim_gives_its_start_up(tmp_path: Path) -> None:
    mark = tmp_path / "has-a-spare"

    async def fail_to_start(shim: ShimProcess) -> None:
        bundle = Bundle(tmp_path / "bundle", "lost")
        bundle.save()
        async with Session(shim) as session, asyncio.timeout(60):
            await until(mark.exists)  # a spare waits for the next start
            with pytest.raises(LaunchError, match=MESSAGE):
                await session.client.start(
                    bundle.id,
                    bundle=bundle.path,
                    tty=False,
                    open_stdin=False,
                    stdin_once=False,
                    log=None,
                )
            await session.client.shutdown()
            shim.process.wait(60)
        assert "Traceback" not in shim.journal
        assert not cgroups_named(bundle.id)

    def body() -> None:
        with ShimProcess(tmp_path, code=f"MARK = {str(mark)!r}\n{_CODE}") as shim:
            asyncio.run(fail_to_start(shim))

    isolated(body)
