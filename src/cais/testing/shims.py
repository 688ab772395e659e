"""Run a real shim process over the fake runtime, and talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cais.shim.client import ShimClient
from cais.shim.values import ExitEvent, LogTarget
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from cais.shim.values import ShimEvent, Started

_CODE = (
    "import sys; from cais.shim.main import main; "
    "from cais.testing.fake_runtime import FakeRuntime; "
    "from cais.shim import launcher; launcher.execute_sealed = lambda args: None; "
    "sys.exit(main(sys.argv[1:], with_runtime=FakeRuntime()))"
)


class ShimProcess:
    """A shim in the foreground under ``root``, which must be short-lived and ours."""

    def __init__(self, root: Path, *, code: str = _CODE) -> None:
        """Start it; return once it listens."""
        self.root = root
        read_fd, write_fd = os.pipe()
        args = ["--data-root", str(root / "data"), "--exec-root", str(root / "run")]
        args += ["--foreground", "--ready-fd", str(write_fd)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
            pass_fds=[write_fd],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(write_fd)
        with open(read_fd, "rb") as ready:
            if ready.read() != b"ready\n":
                _, stderr = self.process.communicate(timeout=PATIENCE_S)
                raise AssertionError(f"the shim did not start: {stderr.decode()}")

    @property
    def socket_path(self) -> Path:
        """Where it listens."""
        return self.root / "run/shim.sock"

    @property
    def journal(self) -> str:
        """What it has logged."""
        return (self.root / "run/shim.log").read_text()

    def fds(self) -> list[str]:
        """Return what its descriptors point at, sorted."""
        directory = f"/proc/{self.process.pid}/fd"
        return sorted(os.readlink(f"{directory}/{name}") for name in os.listdir(directory))

    def stop(self) -> None:
        """Kill it and the processes it left; close everything."""
        pids = self.children()
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """Return the pids of its children, ended ones too."""
        if self.process.poll() is not None:
            return []
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listing.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Session:
    """A client of a ``ShimProcess`` that collects events and makes bundles."""

    def __init__(self, shim: ShimProcess) -> None:
        """Connect with ``async with``."""
        self.shim = shim
        self.client: ShimClient
        self.events: list[ShimEvent] = []
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.client = await ShimClient.connect(self.shim.socket_path, on_event=self._on_event)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    def bundle(self, name: str, *args: str, tty: bool = False, **files: str) -> Path:
        """Make a bundle that runs ``args``; ``files`` are written beside its document."""
        path = self.shim.root / "bundles" / name
        path.mkdir(parents=True, exist_ok=True)
        document: dict[str, Any] = {"process": {"args": args, "terminal": tty}}
        (path / "config.json").write_text(json.dumps(document))
        for file, text in files.items():
            (path / file).write_text(text)
        return path

    def log(self, name: str, **options: Any) -> LogTarget:  # noqa: ANN401
        """Return a log target for the container ``name``."""
        directory = self.shim.root / "logs"
        directory.mkdir(exist_ok=True)
        return LogTarget(str(directory / f"{name}.log"), **options)

    async def run(
        self,
        name: str,
        *args: str,
        tty: bool = False,
        open_stdin: bool = False,
        stdin_once: bool = False,
        log: LogTarget | None = None,
        size: tuple[int, int] | None = None,
    ) -> Started:
        """Start ``args`` as the container ``name``."""
        return await self.client.start(
            name,
            bundle=self.bundle(name, *args, tty=tty),
            tty=tty,
            open_stdin=open_stdin,
            stdin_once=stdin_once,
            log=log,
            size=size,
        )

    async def exited(self, name: str, exec_id: str | None = None) -> ExitEvent:
        """Wait for the exit of ``name``; acknowledge it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if isinstance(event, ExitEvent) and (event.id, event.exec_id) == (
                        name,
                        exec_id,
                    ):
                        self.events.remove(event)
                        await self.client.ack([event.exit_seq])
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def arrived(self, count: int) -> None:
        """Wait until ``count`` events lie in ``events``."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.events) < count:
                self._arrived.clear()
                await self._arrived.wait()

    def _on_event(self, event: ShimEvent) -> None:
        self.events.append(event)
        self._arrived.set()


async def read_all(channel: Any, timeout_s: float = PATIENCE_S) -> bytes:  # noqa: ANN401
    """Read an attach socket to its end and close it."""
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    async with asyncio.timeout(timeout_s):
        while chunk := await loop.sock_recv(channel, 1 << 20):
            chunks.append(chunk)
    channel.close()
    return b"".join(chunks)


def parse_frames(stream: bytes) -> list[tuple[int, bytes]]:
    """Return the stdcopy frames of ``stream`` as (stream number, bytes); AssertionError if cut."""
    frames = []
    while stream:
        header, stream = stream[:8], stream[8:]
        assert header[1:4] == bytes(3), header
        size = int.from_bytes(header[4:], "big")
        assert len(stream) >= size
        frames.append((header[0], stream[:size]))
        stream = stream[size:]
    return frames
