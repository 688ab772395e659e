"""The API served on a unix socket by a thread, driving a fake engine; real clients drive it."""

import asyncio
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cais.api.application import common_headers, make_router
from cais.api.listeners import UnixAddress, UnixListener
from cais.http.server import Server
from cais.testing.fake_engine import FakeEngine
from cais.testing.waiting import PATIENCE_S


class ServedEngine(FakeEngine):
    """A fake engine with an address and a loop of its own."""

    def __init__(self, path: str, config: str) -> None:
        super().__init__()
        self.path = path
        self.host = f"unix://{path}"
        self.environment = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": config}
        self.loop = asyncio.new_event_loop()

    def docker(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the docker CLI with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            ["docker", *arguments], env=self.environment, **{**pipes, **options}
        )

    def in_loop(self, call: Callable[[], object]) -> None:
        """Call in the server's thread."""
        self.loop.call_soon_threadsafe(call)


@pytest.fixture
def served() -> Iterator[ServedEngine]:
    with tempfile.TemporaryDirectory(prefix="cais-api-") as directory:
        engine = ServedEngine(f"{directory}/s", f"{directory}/config")
        started = threading.Event()
        stop = asyncio.Event()

        async def serve() -> None:
            application: Any = make_router(engine)  # type: ignore[arg-type]
            server = Server(application, common_headers())
            listener = UnixListener(UnixAddress(engine.path), -1)
            server.listen(listener.sock)
            started.set()
            await stop.wait()
            await server.close(grace_s=0)
            listener.close()

        thread = threading.Thread(target=engine.loop.run_until_complete, args=(serve(),))
        thread.start()
        started.wait(PATIENCE_S)
        yield engine
        engine.in_loop(stop.set)
        thread.join(PATIENCE_S)
        engine.loop.close()
        engine.close()
        assert not Path(engine.path).exists()
