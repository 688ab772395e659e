"""Kernel tests of hooks under the warm shim: the same rules, and nobody else waits for them."""
# ruff: noqa: ASYNC240 - the hooks are processes, and say by files how far they are

import asyncio
import json
import signal
from pathlib import Path

import pytest
from test_sealed_shim import Engine, with_engine

from cais import errors
from cais.runtime.launch import LaunchError
from cais.shim.client import ShimClient
from cais.testing.waiting import until


def hook(engine: Engine, point: str, script: str) -> None:
    """Add a shell script to a point of the engine's bundle."""
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
    engine.bundle.config.setdefault("hooks", {}).setdefault(point, []).append(entry)


def note(engine: Engine, point: str, extra: str = "true") -> Path:
    """Have a hook write the state it gets, then run ``extra``."""
    path = engine.root / f"{point}.json"
    hook(engine, point, f"cat > {path}.new; mv {path}.new {path}; {extra}")
    return path


async def states(engine: Engine) -> list[str]:
    """Return the states of the shim's containers, as another engine would be told."""
    path = engine.root / "run/shim.sock"
    other = await ShimClient.connect(path, on_event=lambda _: None)
    found = [container.state for container in other.hello.containers]
    other.close()
    return found


def test_hooks_of_every_point_are_run(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        points = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
        notes = {point: note(engine, point) for point in points}
        hook(engine, "startContainer", "cat > /dev/shm/state")
        pid = await engine.start("sh", "-c", "grep -o created /dev/shm/state")
        assert (await engine.exited()).code == 0
        assert engine.logged() == ["created\n"]
        told = {point: json.loads(path.read_text()) for point, path in notes.items()}
        assert [state["status"] for state in told.values()] == [
            *("creating", "creating", "creating", "running", "stopped")
        ]
        assert [state.get("pid") for state in told.values()] == [pid, pid, 1, pid, None]
        assert {state["bundle"] for state in told.values()} == {str(engine.bundle.path)}

    with_engine(tmp_path, body)


@pytest.mark.parametrize(
    "point", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_a_failing_hook_fails_the_start(tmp_path: Path, point: str) -> None:
    async def body(engine: Engine) -> None:
        stopped = note(engine, "poststop")
        hook(engine, point, "echo why >&2; exit 7")
        text = f"error running {point} hook #0: exit status 7, stdout: , stderr: why"
        with pytest.raises(LaunchError, match=text):
            await engine.start("sleep", "60")
        assert json.loads(stopped.read_text())["status"] == "stopped"
        assert await states(engine) == []

    with_engine(tmp_path, body)


def test_a_slow_hook_stalls_no_other_container(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        go = engine.root / "go"
        begun = note(engine, "createRuntime", f"until test -e {go}; do sleep 0.01; done")
        starting = asyncio.create_task(engine.start("sleep", "60"))
        await until(begun.exists)
        assert await states(engine) == ["starting"]
        go.touch()
        await starting

    with_engine(tmp_path, body)


def test_the_exit_is_told_behind_the_poststop_hooks(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        go = engine.root / "go"
        begun = note(engine, "poststop", f"until test -e {go}; do sleep 0.01; done; exit 3")
        await engine.start("true")
        await until(begun.exists)
        assert engine.events.empty()
        with pytest.raises(errors.ConflictError):
            await engine.start("true")
        with pytest.raises(errors.ConflictError):
            await engine.client.shutdown()
        go.touch()
        assert (await engine.exited()).code == 0
        text = "error running poststop hook #0: exit status 3"
        assert text in (engine.root / "run/shim.log").read_text()

    with_engine(tmp_path, body)


def test_a_start_given_up_in_a_hook_ends_the_hook(tmp_path: Path) -> None:
    async def body(engine: Engine) -> None:
        begun = engine.root / "pid"
        hook(
            engine, "createRuntime", f"echo $$ > {begun}.new; mv {begun}.new {begun}; exec sleep 99"
        )
        stopped = note(engine, "poststop")
        starting = asyncio.create_task(engine.start("sleep", "60"))
        await until(begun.exists)
        await engine.client.kill(engine.bundle.id, signal.SIGKILL)
        with pytest.raises(errors.ConflictError, match="the start was interrupted"):
            await starting
        assert json.loads(stopped.read_text())["status"] == "stopped"
        while Path(f"/proc/{begun.read_text().strip()}").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    with_engine(tmp_path, body)
