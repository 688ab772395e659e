"""A worker can reach nothing but its layer; its end, however it comes, costs that layer alone."""

import bz2
import contextlib
import ctypes
import errno
import gzip
import hashlib
import io
import lzma
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zstandard

from cais.errors import DeadlineError, ExhaustedError, InternalError, InvalidArgumentError
from cais.images import archive
from cais.images.unpack import Limits, Unpacked
from cais.images.unpacker import confinement, detached
from cais.images.unpacker.messages import receive, send
from cais.images.unpacker.pool import STALL_S, Unpacker
from cais.images.unpacker.worker_handle import Worker
from cais.linux import credentials, process
from cais.testing.image_store import docker_archive, left_over, open_image_store
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar
from cais.testing.waiting import wait_until

LAYER = tar([Member("file", b"content"), Member("directory/", kind=b"5", mode=0o755)])


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def file_of(content: bytes, where: Path) -> int:
    path = where / "archive"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def unpack(worker: Worker, where: Path, content: bytes = LAYER) -> Unpacked:
    root = where / f"root-{time.monotonic_ns()}"
    root.mkdir()
    archive_fd = file_of(content, where)
    try:
        return worker.unpack(
            archive_fd,
            os.fspath(root),
            None,
            limits=Limits(),
            is_verified=False,
            report=lambda _: None,
        )
    finally:
        os.close(archive_fd)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def warden_pid(unpacker: Unpacker) -> int:
    assert unpacker._warden is not None
    return unpacker._warden._process.pid


@contextmanager
def a_worker(unpacker: Unpacker) -> Iterator[tuple[Worker, int]]:
    """Give a worker that has proved to be alive, and its pid; it is ended afterwards."""
    with unpacker.open():
        loan = unpacker.borrow()
        try:
            receive(loan.worker._line)  # what does not confine it
            [pid] = children(warden_pid(unpacker))
            yield loan.worker, pid
        finally:
            loan.discard()


def test_a_worker_has_namespaces_capabilities_and_descriptors_of_its_own() -> None:
    def body() -> None:
        with a_worker(Unpacker()) as (_, pid):
            for kind in ("mnt", "net", "ipc", "uts", "pid"):
                mine, its = (os.readlink(f"/proc/{who}/ns/{kind}") for who in ("self", pid))
                assert mine != its, kind
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if ":\t" in line
            )
            kept = credentials.mask_of(
                f"CAP_{name}"
                for name in (
                    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"),
                    *("MKNOD", "SETFCAP", "SYS_ADMIN"),
                )
            )[0]
            for name in ("CapPrm", "CapEff", "CapBnd"):
                assert int(status[name], 16) & ~kept == 0, name
            assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            [root] = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
            assert root.split()[3:6] == ["/", "/", "ro,nosuid,nodev,noexec,relatime"]
            assert os.listdir(f"/proc/{pid}/root/") == []
            held = sorted(
                os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
            )
            assert held[:3] == ["/dev/null"] * 3
            assert [one.partition(":")[0] for one in held[3:]] == ["socket"]
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert f"Max address space         {confinement.MEMORY_LIMIT_BYTES}" in limits

    isolated(body)


def taken_over(root_fd: int, archive_fd: int) -> dict[str, str]:
    """Do what a layer would that has taken its worker over; return what became of each attempt."""
    os.mknod("disk", 0o600 | 0o060000, os.makedev(7, 0), dir_fd=root_fd)
    os.symlink("/etc", "link", dir_fd=root_fd)
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *args: object) -> None:
        if getattr(libc, name)(*args) < 0:
            raise OSError(ctypes.get_errno(), name)

    attempts: dict[str, Callable[[], object]] = {
        "a path of the host": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "above the layer": lambda: os.open("../../etc/passwd", os.O_RDONLY, dir_fd=root_fd),
        "what is above it": lambda: os.open("../" * 40 + "etc", os.O_PATH, dir_fd=root_fd),
        "through its own link": lambda: os.open("link/passwd", os.O_RDONLY, dir_fd=root_fd),
        "a device": lambda: os.open("disk", os.O_RDONLY, dir_fd=root_fd),
        "the archive anew": lambda: os.open(f"/proc/self/fd/{archive_fd}", os.O_RDWR),
        "the archive's mode": lambda: os.fchmod(archive_fd, 0o777),
        "the archive's bytes": lambda: os.write(archive_fd, b"x"),
        "a process": os.fork,
        "a socket": lambda: socket.socket(socket.AF_UNIX),
        "a namespace": lambda: call("setns", root_fd, 0),
        "a mount": lambda: call("mount", b"none", b"/", b"tmpfs", 0, None),
        "another root": lambda: call("chroot", b"/"),
        "a signal": lambda: os.kill(-1, signal.SIGKILL),
        "a program": lambda: os.execve("/bin/true", ["true"], {}),
        "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "limits": lambda: call("prlimit", 0, 7, None, None),
        "a key": lambda: call("syscall", 250, 0, 0, 0, 0),
        "a debugger": lambda: call("ptrace", 0, 0, 0, 0),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as exc:
            found[name] = errno.errorcode.get(exc.errno or 0, "")
    return found


def test_nothing_can_be_reached_from_inside(tmp_path: Path) -> None:
    def body() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = confinement.compile_filter()
        pid, pidfd = process.clone(confinement.NAMESPACES)
        if pid == 0:
            refused = confinement.confine([theirs.fileno()], program, is_in_namespaces=True)
            _, (archive_fd, root_fd) = receive(theirs, 2)
            send(theirs, {"refused": refused, "found": taken_over(root_fd, archive_fd)})
            os._exit(0)
        theirs.close()
        root = tmp_path / "root"
        root.mkdir()
        archive_fd = file_of(LAYER, tmp_path)
        with ExitStack() as stack:
            stack.callback(os.close, archive_fd)
            read_only_fd = detached.open_read_only(archive_fd, stack)
            root_fd = detached.open_tree(os.fspath(root), detached.HARMLESS, stack)
            send(ours, {}, [read_only_fd, root_fd])
        told, _ = receive(ours)
        ours.close()
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        assert told["refused"] == []
        assert [name for name, end in told["found"].items() if end == "done"] == []
        missing = {"a path of the host", "above the layer", "what is above it", "the archive anew"}
        assert {told["found"][name] for name in missing} == {"ENOENT"}
        assert told["found"]["a device"] == "EACCES"
        assert told["found"]["the archive's mode"] == "EROFS"
        calls = {"a process", "a socket", "a namespace", "a mount", "a program", "code"}
        assert {told["found"][name] for name in calls} == {"ENOSYS"}

    isolated(body)


def test_a_worker_that_dies_is_named_and_the_next_one_works(tmp_path: Path) -> None:
    def body() -> None:
        unpacker = Unpacker()
        with unpacker.open():
            with a_worker(unpacker) as (worker, pid):
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(InternalError, match="worker was killed by SIGKILL"):
                    unpack(worker, tmp_path)
            loan = unpacker.borrow()
            assert unpack(loan.worker, tmp_path).size_bytes == len(b"content")
            loan.give_back()

    isolated(body)


def test_a_worker_without_memory_says_so_or_crashes_alone(tmp_path: Path) -> None:
    def body() -> None:
        with a_worker(Unpacker()) as (worker, pid):
            resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
            with pytest.raises((ExhaustedError, InternalError), match=r"no memory left|the unpack"):
                unpack(worker, tmp_path, tar([Member("big", bytes(32 << 20))]))

    isolated(body)


def test_a_worker_that_stands_still_is_ended(tmp_path: Path) -> None:
    def body() -> None:
        unpacker = Unpacker()
        with unpacker.open():
            with a_worker(unpacker) as (worker, pid):
                assert worker._line.gettimeout() == STALL_S
                worker._stall_s = 0.5
                worker._line.settimeout(0.5)
                os.kill(pid, signal.SIGSTOP)
                with pytest.raises(DeadlineError, match=r"made no progress for 0\.5 s"):
                    unpack(worker, tmp_path)
            assert not os.path.exists(f"/proc/{pid}")  # before the warden ends and takes it along

    isolated(body)


def test_a_warden_that_dies_costs_one_operation(tmp_path: Path) -> None:
    def body() -> None:
        unpacker = Unpacker()
        with a_worker(unpacker) as (worker, pid):
            os.kill(warden_pid(unpacker), signal.SIGKILL)
            wait_until(lambda: is_zombie(pid))  # its parent's end has killed it
            with pytest.raises(InternalError, match="is gone, with its warden"):
                unpack(worker, tmp_path)
            with pytest.raises(InternalError, match="unpacking process is gone"):
                unpacker.borrow()
            os.waitid(os.P_PID, pid, os.WEXITED)  # it is ours now
        with unpacker.open():
            loan = unpacker.borrow()
            assert unpack(loan.worker, tmp_path).size_bytes == len(b"content")
            loan.give_back()

    isolated(body)


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_whoever_ends_takes_warden_and_workers_along() -> None:
    """The daemon is killed: neither its sockets nor anything else keeps what it started alive."""

    def body() -> None:
        read_fd, write_fd = os.pipe()
        daemon = os.fork()
        if daemon == 0:
            unpacker = Unpacker()
            with a_worker(unpacker) as (_, pid):
                os.write(write_fd, f"{warden_pid(unpacker)} {pid}".encode())
                signal.pause()
        os.close(write_fd)
        started = [int(pid) for pid in os.read(read_fd, 100).split()]
        os.close(read_fd)
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        os.waitpid(started[0], 0)  # an orphan: isolated() is its reaper
        assert not any(os.path.exists(f"/proc/{pid}") for pid in started)

    isolated(body)


def test_what_a_host_refuses_is_logged_and_layers_are_unpacked(tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN there are neither namespaces nor mounts; the rest still holds."""
    code = """
import logging, os, sys
from cais.linux import credentials
logging.basicConfig(format="%(message)s")
admin = credentials.mask_of(["CAP_SYS_ADMIN"])[0]
kept = credentials.permitted() & ~admin
credentials.drop_bounding(kept)
credentials.set_capabilities(permitted=kept, effective=kept, inheritable=0)
from cais.images.unpack import Limits
from cais.images.unpacker.pool import Unpacker
unpacker = Unpacker()
with unpacker.open(), open(sys.argv[1], "rb") as archive:
    loan = unpacker.borrow()
    done = loan.worker.unpack(archive.fileno(), sys.argv[2], None, limits=Limits(),
                              is_verified=False, report=lambda _: None)
    loan.give_back()
print(done.size_bytes)
"""
    (tmp_path / "archive").write_bytes(LAYER)
    (tmp_path / "root").mkdir()
    command = [sys.executable, "-c", code, tmp_path / "archive", tmp_path / "root"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "7\n"
    for refused in ("namespaces", "a mount of its own for each directory", "read-only mount"):
        assert refused in done.stderr
    for held in ("capabilities", "filter", "privileges", "limits"):
        assert held not in done.stderr
    assert (tmp_path / "root/file").read_bytes() == b"content"


def test_a_failure_in_the_worker_is_the_callers(tmp_path: Path) -> None:
    def body() -> None:
        for content, fault in (
            (tar([Member("../x")]), "leads out of the archive"),
            (b"\x1f\x8b\x08 but no more", "gzip: "),
        ):
            with (
                a_worker(Unpacker()) as (worker, _),
                pytest.raises(InvalidArgumentError, match=fault),
            ):
                unpack(worker, tmp_path, content)

    isolated(body)


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress, zstd, bytes])
def test_every_compression_is_undone_inside(
    tmp_path: Path, packed: Callable[[bytes], bytes]
) -> None:
    """Nothing can be imported any more when the first byte says what it is."""

    def body() -> None:
        with a_worker(Unpacker()) as (worker, _):
            done = unpack(worker, tmp_path, packed(LAYER))
            assert done.sha256 == hashlib.sha256(LAYER).hexdigest()

    isolated(body)


def test_a_load_whose_worker_dies_leaves_nothing(tmp_path: Path) -> None:
    """Killed while a layer is half written: neither image, nor snapshot, nor blob is left."""

    def body() -> None:
        with open_image_store(tmp_path) as store:
            before = left_over(store)
            deaths = threading.Thread(target=kill_the_first_worker, args=[store.unpacker])
            deaths.start()
            big = tar([Member(f"file{n}", bytes(4096)) for n in range(20_000)])
            with pytest.raises(InternalError, match="killed by SIGKILL"):
                archive.load(io.BytesIO(docker_archive([big])), store)
            deaths.join()
            assert left_over(store) == before
            archive.load(io.BytesIO(docker_archive([LAYER])), store)

    isolated(body)


def kill_the_first_worker(unpacker: Unpacker) -> None:
    while True:
        with contextlib.suppress(AssertionError, FileNotFoundError):
            for pid in children(warden_pid(unpacker)):
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.001)


def test_one_that_lies_is_not_believed() -> None:
    """The other end may be anybody by now: what it says is checked like any input."""
    for lie in (
        {"sha256": 1, "size_bytes": 1, "has_root": True},
        {"sha256": "", "size_bytes": -1, "has_root": True},
        {"sha256": "", "size_bytes": True, "has_root": "yes"},
        {"read": "much"},
        {"lowers": True},
        {"error": "none"},
        {"error": {"kind": "BaseException", "message": "x"}},
        {"error": {"kind": "CaisError.__init__", "message": "x"}},
        {"refused": 1},
    ):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = Worker(ours, socket.socket(), 60)
        send(theirs, lie)
        with pytest.raises(InternalError, match="does not keep to the protocol"):
            worker._converse(None, lambda _: None)
        for end in (worker, theirs):
            end.leave() if isinstance(end, Worker) else end.close()
