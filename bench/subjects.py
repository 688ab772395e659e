"""The daemons that are compared, each in namespaces and on a data root of its own."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.disks import disk_at
from cais.client import Address, Client
from cais.testing.archives import busybox_archive
from cais.testing.daemon import TestDaemon

# A container process shows what runs in it, not what the engine costs.
PAYLOAD = "sleep"


class Subject(TestDaemon):
    """A daemon, its API client, and what its own processes cost."""

    counts_spares = True

    @property
    def client(self) -> Client:
        return Client(Address(str(self.socket_path)))

    def engine_pss_kib(self) -> int:
        """Return the proportional memory of everything that is not a container's own process."""
        total = 0
        for pid, command in self.processes().items():
            if not command.startswith((PAYLOAD, "nsenter", "timeout", "zombie")):
                total += _field_kib(self._proc / str(pid) / "smaps_rollup", "Pss:")
        return total

    @contextmanager
    def watched_memory(self) -> Iterator[Callable[[], tuple[float, float]]]:
        """Give what returns, after the block, the most memory there was in it, in MiB.

        Of the daemon: its largest resident set, as the kernel knows it. Of all our processes at
        once: the sum of their proportional sets, looked at ten times a second.
        """
        together_kib = [0]
        ended = threading.Event()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forget the peak there was before

        def watch() -> None:
            while not ended.wait(0.1):
                ours = [pid for pid, command in self.processes().items() if "cais" in command]
                parts = (_field_kib(self._proc / str(pid) / "smaps_rollup", "Pss:") for pid in ours)
                together_kib.append(sum(parts))

        def most() -> tuple[float, float]:
            daemon_kib = _field_kib(Path(f"/proc/{self.pid}/status"), "VmHWM:")
            return daemon_kib / 1024, max(together_kib) / 1024

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield most
        finally:
            ended.set()
            thread.join()

    def wait_until_trash_is_gone(self) -> None:
        """Return when no removed layer is left on the disk: Cais deletes them after its answer."""
        trash = self.data_root / "snapshots" / "trash"
        deadline = time.monotonic() + 60
        while trash.is_dir() and any(trash.iterdir()):
            assert time.monotonic() < deadline, "removed layers stay"
            time.sleep(0.02)

    def processor_s(self, *, without: str) -> float:
        """Return what all processes inside took so far, but for those of one program."""
        ticks = 0
        for entry in self._proc.iterdir():
            if entry.name.isdigit():
                with suppress(FileNotFoundError, ProcessLookupError):
                    name, _, rest = (entry / "stat").read_text().rpartition(")")
                    if not name.endswith(f"({without}"):
                        ticks += sum(map(int, rest.split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self.namespaces.pid}/root/proc")

    def run_sleepers(self, count: int, workers: int = 4) -> list[str]:
        """Start containers that sleep, ``workers`` at a time, through the docker CLI."""
        from concurrent.futures import ThreadPoolExecutor

        def start(_: int) -> str:
            return self.docker("run", "-d", "busybox", PAYLOAD, "86400").stdout.strip()

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(start, range(count)))

    def remove(self, identifiers: list[str]) -> None:
        for start in range(0, len(identifiers), 25):
            self.docker("rm", "-f", *identifiers[start : start + 25], timeout_s=300)


class Dockerd(Subject):
    """Docker's daemon and its containerd."""

    def command(self) -> list[str]:
        return [
            *("env", "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"),
            *("sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"),
            shutil.which("dockerd") or "/usr/sbin/dockerd",
            *("-H", self.host),
            *("--data-root", str(self.data_root)),
            *("--exec-root", str(self.exec_root)),
            *("--pidfile", str(self.directory / "dockerd.pid")),
            *self.arguments,
        ]


def has_dockerd() -> bool:
    return bool(shutil.which("dockerd") or Path("/usr/sbin/dockerd").exists())


@contextmanager
def both(directory: Path) -> Iterator[tuple[Subject, Subject | None]]:
    """Give Cais and, where it is installed, Docker; both with busybox loaded and once warmed up."""
    with ExitStack() as stack:
        ours = stack.enter_context(_prepared(Subject, directory / "cais"))
        peer = (
            stack.enter_context(_prepared(Dockerd, directory / "docker")) if has_dockerd() else None
        )
        yield ours, peer


@contextmanager
def _prepared(kind: type[Subject], directory: Path) -> Iterator[Subject]:
    directory.mkdir()
    with disk_at(directory), kind(directory) as subject:
        subject.docker("load", stdin=busybox_archive())
        subject.docker("run", "--rm", "busybox", "true")
        time.sleep(0.5)  # what a daemon still does after its first container is not the next one's
        yield subject


def _field_kib(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
