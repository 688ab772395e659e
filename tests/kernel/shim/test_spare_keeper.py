"""Kernel tests of the spares of a shim: one is there again after each start, none after its end."""
# ruff: noqa: ASYNC222 - what is waited for has been killed or says so at once

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.shim.client import ShimClient, ensure_shim
from cais.shim.values import ExitEvent, ShimEvent
from cais.testing.bundles import Bundle
from cais.testing.isolation import cgroups_named, children, isolated
from cais.testing.waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Shim:
    """A shim of its own with one bundle."""

    def __init__(self, root: Path) -> None:
        self.bundle = Bundle(root / "bundle", "spares")
        self.events: asyncio.Queue[ShimEvent] = asyncio.Queue()
        self.root = root
        self.client: ShimClient

    async def connect(self) -> None:
        for name in ("data", "run"):
            (self.root / name).mkdir(exist_ok=True)
        self.client = await ensure_shim(
            self.root / "data",
            self.root / "run",
            on_event=self.events.put_nowait,
            timeout_s=PATIENCE_S,
        )

    def spares(self) -> set[int]:
        """Return the pids of the nursery and what comes from it."""
        pid = self.client.hello.pid
        listing = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(child) for child in listing if _name(child) == "cais-spare"}

    async def spare_is_there(self) -> set[int]:
        """Wait until there is a nursery and a spare that waits; return their pids."""

        def found() -> set[int]:
            pids = self.spares()
            return pids if len(pids) >= 2 and all(map(_sleeps, pids)) else set()

        return await until(found)

    async def run(self, *args: str) -> int | None:
        self.bundle.process["args"] = list(args)
        self.bundle.save()
        await self.client.start(
            self.bundle.id,
            bundle=self.bundle.path,
            tty=False,
            open_stdin=False,
            stdin_once=False,
            log=None,
        )
        event = await asyncio.wait_for(self.events.get(), 60)
        assert isinstance(event, ExitEvent)
        await self.client.ack([event.exit_seq])
        return event.code


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _sleeps(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except (FileNotFoundError, ProcessLookupError):
        return False


def with_shim(root: Path, body: Callable[[Shim], Awaitable[None]]) -> None:
    async def run() -> None:
        shim = Shim(root)
        await shim.connect()
        try:
            await body(shim)
        finally:
            shim.client.close()

    isolated(lambda: asyncio.run(run()))


async def shut_down(shim: Shim) -> None:
    await shim.client.shutdown()
    os.waitpid(shim.client.hello.pid, 0)


def test_each_start_takes_one_and_another_comes(tmp_path: Path) -> None:
    async def body(shim: Shim) -> None:
        before = await shim.spare_is_there()
        for code in (0, 3):
            assert await shim.run("sh", "-c", f"exit {code}") == code
            after = await shim.spare_is_there()
            assert len(after) == 2
            assert len(after & before) == 1  # the nursery
            before = after
        assert (shim.root / "run/shim.log").read_text().count("Traceback") == 0
        await shut_down(shim)
        assert not set(children())
        assert not cgroups_named(shim.bundle.id)

    with_shim(tmp_path, body)


def test_what_is_kept_dies_with_a_killed_shim(tmp_path: Path) -> None:
    async def body(shim: Shim) -> None:
        await shim.spare_is_there()
        os.kill(shim.client.hello.pid, signal.SIGKILL)
        while list(children()):  # orphans come here; each must end by itself
            os.waitpid(-1, 0)

    with_shim(tmp_path, body)


def test_without_its_nursery_a_shim_clones(tmp_path: Path) -> None:
    async def body(shim: Shim) -> None:
        for pid in await shim.spare_is_there():
            os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            assert await shim.run("true") == 0
        assert not shim.spares()
        await shut_down(shim)

    with_shim(tmp_path, body)
