"""The runtime rows: a bundle run cold by each runtime's command, and warm by our shim."""

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.bundles import make_bundle
from bench.measure import Row, in_turns, milliseconds
from cais.shim.client import ShimClient, ensure_shim
from cais.shim.values import ExitEvent
from cais.testing.daemon import BIN
from cais.testing.isolation import CGROUP_ROOT

COLD = "cais-runtime run of true, cold"
WARM = "create, start, exit, delete in the warm shim"


def measure(directory: Path, times: int, only: str) -> Iterator[Row]:
    """Yield the runtime rows; a runtime that cannot run the bundle here is left out."""
    bundle = make_bundle(directory / "bundle", "true", cgroup="/cais-bench/true")
    _hide_unified()
    try:
        if only in COLD:
            ours, runc = _cold(bundle, directory, "cais-runtime"), _cold(bundle, directory, "runc")
            if ours:
                # runc's own runs differ by a third: more of them are needed than elsewhere
                yield Row(COLD, "ms", "runc run", *in_turns(ours, runc, 5 * times), 1.5)
        if only in WARM:
            yield from _warm_rows(bundle, directory, times)
    finally:
        _remove_cgroups()


def _cold(bundle: Path, directory: Path, name: str) -> Callable[[], float] | None:
    """Return a measurement of ``<runtime> run``; None where it does not work."""
    program = BIN / name if name.startswith("cais") else shutil.which(name)
    if program is None:
        return None
    command = [str(program), "--root", str(directory / name), "run", "--bundle", str(bundle), "b"]
    tried = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if tried.returncode:
        print(f"{name} is not usable here: {tried.stderr.decode().strip()[:200]}")
        return None

    def run() -> float:
        return milliseconds(
            lambda: subprocess.run(
                command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        )

    return run


def _warm_rows(bundle: Path, directory: Path, times: int) -> Iterator[Row]:
    for name, budget in (("crun", 0.6), ("runc", 0.3)):
        peer = _cold(bundle, directory, name)
        with _warm(bundle, directory) as ours:
            yield Row(WARM, "ms", f"{name} run", *in_turns(ours, peer, times), budget)


@contextlib.contextmanager
def _warm(bundle: Path, directory: Path) -> Iterator[Callable[[], float]]:
    """Give a measurement of one round through the socket of a shim that is already there."""
    roots = directory / "shim-data", directory / "shim-exec"
    for root in roots:
        root.mkdir(exist_ok=True)
    ended: asyncio.Queue[ExitEvent] = asyncio.Queue()

    def on_event(event: object) -> None:
        if isinstance(event, ExitEvent):
            ended.put_nowait(event)

    with asyncio.Runner() as runner:
        client = runner.run(ensure_shim(*roots, on_event=on_event))
        names = (f"warm{turn}" for turn in itertools.count())
        try:
            yield lambda: runner.run(_round(client, next(names), bundle, ended))
        finally:
            runner.run(client.shutdown())
            client.close()


async def _round(
    client: ShimClient, name: str, bundle: Path, ended: asyncio.Queue[ExitEvent]
) -> float:
    began = time.perf_counter()
    await client.start(name, bundle=bundle, tty=False, open_stdin=False, stdin_once=False, log=None)
    event = await asyncio.wait_for(ended.get(), 20)
    await client.ack([event.exit_seq])
    assert event.code == 0, event
    return (time.perf_counter() - began) * 1000


def _hide_unified() -> None:
    """Make a hybrid host a v1 host in the bench's own mount namespace: crun refuses hybrids."""
    unified = CGROUP_ROOT / "unified"
    if unified.is_mount():
        subprocess.run(["umount", str(unified)], check=True)


def _remove_cgroups() -> None:
    for parent in (*CGROUP_ROOT.glob("cais-bench"), *CGROUP_ROOT.glob("*/cais-bench")):
        for path in sorted(parent.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
