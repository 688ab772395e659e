"""The daemons that are compared, each in namespaces and on a data root of its own."""

import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cais.client import Address, Client
from cais.testing.archives import busybox_archive
from cais.testing.daemon import TestDaemon

CACHE = Path(__file__).parents[1] / ".cache" / "bench"

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
        root = f"/proc/{self._holder_pid}/root/proc"
        total = 0
        for pid, command in self.processes().items():
            if not command.startswith((PAYLOAD, "nsenter", "timeout", "zombie")):
                total += _pss_kib(Path(root, str(pid), "smaps_rollup"))
        return total

    @contextmanager
    def watched_memory(self) -> Iterator[Callable[[], float]]:
        """Give what returns the most memory (MiB, PSS) our processes had at once in the block."""
        seen = [0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                seen.append(sum(_pss_kib(path) for path in self._own_processes()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield lambda: max(seen) / 1024
        finally:
            ended.set()
            thread.join()

    def _own_processes(self) -> list[Path]:
        root = f"/proc/{self._holder_pid}/root/proc"
        ours = [pid for pid, command in self.processes().items() if "cais." in command]
        return [Path(root, str(pid), "smaps_rollup") for pid in ours]

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
    for name in ("cais", "docker"):
        (directory / name).mkdir()
    with Subject(directory / "cais") as ours:
        prepare(ours)
        if not has_dockerd():
            yield ours, None
            return
        with Dockerd(directory / "docker") as peer:
            prepare(peer)
            yield ours, peer


def prepare(subject: Subject) -> None:
    subject.docker("load", stdin=busybox_archive())
    subject.docker("run", "--rm", "busybox", "true")
    time.sleep(0.5)  # what a daemon still does after its first container is not the next one's


def debian_archive(directory: Path) -> Path | None:
    """Return a docker-archive of a minimal Debian, made once with mmdebstrap; None without it."""
    path = directory / "debian.tar"
    if path.exists():
        return path
    if shutil.which("mmdebstrap") is None:
        return None
    from cais.testing.archives import docker_archive

    directory.mkdir(parents=True, exist_ok=True)
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "stable") if release["ID"] == "debian" else "stable"
    command = ["mmdebstrap", "--variant=minbase", "--quiet", suite, "-"]
    made = subprocess.run(command, capture_output=True, check=False, timeout=600)
    if made.returncode:
        print(f"no Debian image: {made.stderr.decode().strip().splitlines()[-3:]}")
        return None
    path.write_bytes(docker_archive("debian:stable", [made.stdout], Cmd=["bash"]))
    return path


def _pss_kib(path: Path) -> int:
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
