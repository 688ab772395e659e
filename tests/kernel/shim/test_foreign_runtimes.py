"""Other runtimes' commands when they fail, hang or lie: a script plays the runtime."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cais import errors
from cais.runtime.launch import LaunchError
from cais.shim.values import OciRuntime, Started
from cais.testing.shims import Session, ShimProcess
from cais.testing.waiting import until

# ``mode`` lies beside it and says what it is to do wrong; ``calls`` gets every verb.
SCRIPT = r"""#!/bin/sh
here=$(dirname "$0")
while :; do
  case $1 in
    --root | --log-format) shift 2 ;;
    --log) log=$2; shift 2 ;;
    --given) shift ;;
    *) break ;;
  esac
done
verb=$1
mode=$(cat "$here/mode")
for word; do [ "$previous" = --pid-file ] && pid_file=$word; previous=$word; done
echo "$verb" >>"$here/calls"
echo "$*" >"$here/words"
case $mode in
  fail-$verb)
    echo '{"level":"error","msg":"runc create failed: it was told to"}' >>"$log"
    echo '{"level":"info","msg":"that was all"}' >>"$log"
    exit 1 ;;
  hang-$verb) exec sleep 1000 ;;
esac
case $verb in
  create | restore)
    sleep 1000 &
    if [ "$mode" = stranger ]; then cat "$here/stranger" >"$pid_file"; else echo $! >"$pid_file"; fi
    ;;
  delete)
    sleep 0.3
    echo deleted >>"$here/calls" ;;
  exec) exec PYTHON "$here/exec.py" "$pid_file" ;;
esac
"""

# A process that has ended, unreaped, before the runtime has.
EXEC = """import os, sys
pid = os.fork() or os._exit(7)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
open(sys.argv[1], "w").write(str(pid))
"""


class Bench:
    """A shim, a session, and the runtime that is a script."""

    def __init__(self, root: Path, session: Session) -> None:
        self.root = root
        self.session = session
        self.runtime = OciRuntime(str(root / "runtime"), ("--given",), str(root / "state"))
        (root / "runtime").write_text(SCRIPT.replace("PYTHON", sys.executable))
        (root / "exec.py").write_text(EXEC)
        (root / "runtime").chmod(0o755)
        self.misbehave("")

    def misbehave(self, mode: str) -> None:
        (self.root / "mode").write_text(mode)

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().split() if path.exists() else []

    @property
    def desks(self) -> list[str]:
        return os.listdir(self.root / "state/commands")

    @property
    def words(self) -> list[str]:
        return (self.root / "words").read_text().split()

    async def start(self, name: str = "a", checkpoint: Path | None = None) -> Started:
        bundle = self.root / "bundles" / name
        (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
        process: dict[str, Any] = {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
        document = {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": process,
            "linux": {"cgroupsPath": f"/cais-test-none-{os.getpid()}/{name}"},
        }
        (bundle / "config.json").write_text(json.dumps(document))
        return await self.session.client.start(
            name,
            bundle=bundle,
            tty=False,
            open_stdin=False,
            stdin_once=False,
            log=None,
            runtime=self.runtime,
            checkpoint=checkpoint,
        )

    async def until_idle(self) -> None:
        await until(lambda: not self.desks)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount namespace for each command")
    with ShimProcess(tmp_path) as shim:
        async with Session(shim) as session:
            yield Bench(tmp_path, session)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_its_process_becomes_the_shims(bench: Bench) -> None:
    fds = bench.session.shim.fds()
    started = await bench.start()
    assert bench.session.shim.children() == [started.pid]
    os.kill(started.pid, signal.SIGTERM)
    ended = await bench.session.exited("a")
    assert (ended.pid, ended.code, ended.signal) == (started.pid, 143, 15)
    await bench.until_idle()
    assert bench.calls == ["create", "start", "delete", "deleted"]
    await until(lambda: bench.session.shim.fds() == fds)


@pytest.mark.parametrize("verb", ["create", "start"])
async def test_a_command_that_fails_says_why_and_leaves_nothing(bench: Bench, verb: str) -> None:
    bench.misbehave(f"fail-{verb}")
    with pytest.raises(LaunchError, match=r"^it was told to$"):
        await bench.start()
    await bench.until_idle()
    assert bench.calls[-1] == "deleted"
    await until(lambda: not any(map(is_alive, bench.session.shim.children())))
    bench.misbehave("")
    await bench.start()  # the name is free again


async def test_a_stranger_is_neither_taken_nor_killed(bench: Bench) -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # noqa: ASYNC220 - a moment
        try:
            (bench.root / "stranger").write_text(str(stranger.pid))
            bench.misbehave("stranger")
            with pytest.raises(LaunchError, match="is not its orphan"):
                await bench.start()
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_a_start_that_hangs_is_given_up_by_a_kill(bench: Bench) -> None:
    bench.misbehave("hang-create")
    start = asyncio.create_task(bench.start())
    await until(lambda: bench.calls == ["create"])
    bench.misbehave("")
    await bench.session.client.kill("a", signal.SIGKILL)
    with pytest.raises(errors.ConflictError, match="the start was interrupted"):
        await start
    started = await bench.start()  # waits until the runtime has forgotten the first
    assert bench.calls == ["create", "delete", "deleted", "create", "start"]
    assert is_alive(started.pid)


async def test_a_command_that_hangs_keeps_nobody_else_waiting(bench: Bench) -> None:
    await bench.start()
    bench.misbehave("hang-pause")
    pause = asyncio.create_task(bench.session.client.pause("a"))
    await until(lambda: bench.calls[-1] == "pause")
    await bench.start("b")
    assert not pause.done()
    pause.cancel()


async def test_a_failed_change_is_told(bench: Bench) -> None:
    await bench.start()
    bench.misbehave("fail-pause")
    with pytest.raises(errors.InternalError, match="it was told to"):
        await bench.session.client.pause("a")
    bench.misbehave("")
    await bench.session.client.pause("a")
    with pytest.raises(errors.ConflictError, match="already paused"):
        await bench.session.client.pause("a")


async def test_an_exec_that_has_ended_before_its_number_is_known(bench: Bench) -> None:
    await bench.start()
    document = bench.root / "exec.json"
    process = {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    document.write_text(json.dumps({"process": process, "user": None}))
    for number in range(8):
        await bench.session.client.exec(
            "a", f"e{number}", document=document, tty=False, open_stdin=False
        )
        assert (await bench.session.exited("a", f"e{number}")).code == 7


async def test_checkpoint_and_restore(bench: Bench) -> None:
    started = await bench.start()
    place = bench.root / "checkpoint"
    await bench.session.client.checkpoint("a", directory=place, leave_running=True)
    assert bench.words[:3] == ["checkpoint", "--image-path", str(place)]
    assert bench.words[-2:] == ["--leave-running", "a"]
    os.kill(started.pid, signal.SIGKILL)
    await bench.session.exited("a")
    restored = await bench.start(checkpoint=place)
    assert bench.calls[-1] == "restore"  # it runs: no start
    assert bench.words[:4] == ["restore", "--detach", "--image-path", str(place)]
    os.kill(restored.pid, signal.SIGTERM)
    assert (await bench.session.exited("a")).code == 143


async def test_a_missing_program_fails_the_start(bench: Bench) -> None:
    (bench.root / "runtime").unlink()
    with pytest.raises(LaunchError, match="no such file or directory"):
        await bench.start()
    await bench.until_idle()
