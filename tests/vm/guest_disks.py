"""The disks of the virtual machine that run_qemu.py boots, kept under ``.cache/vm``.

    system-<key>/   kernel, initrd and disk.img: a small installation of this machine's own
                    distribution, by mmdebstrap from this machine's own package sources
    tools-<key>.img .venv and the Python it was made with, at their paths on this machine, and the
                    docker CLI, if there is one
    (per run)       the sources and the command to run

A key is the digest of everything that went in, so a changed list builds anew and what is there is
never refreshed; of each kind the few that were used last are kept. The guest's distribution is the
host's because the host's .venv must run in it.

Needs: root, mmdebstrap, mke2fs (e2fsprogs).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache/vm"
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
PACKAGES = (
    *("systemd-sysv", "dbus", "kmod", "initramfs-tools", "apparmor", "libsqlite3-0", "libssl3"),
    *("busybox-static", "libseccomp2", "libnftables1", "nftables", "iproute2", "util-linux"),
    *("procps", "strace", "e2fsprogs", "criu", "iptables"),  # CRIU locks networks by iptables
    *("uidmap", "libcap2-bin", "zstd", "xz-utils", "btrfs-progs", "xfsprogs", "fuse-overlayfs"),
    *("runc", "crun", "umoci", "skopeo", "podman"),  # peers
    *("libffi8", "liblzma5", "libbz2-1.0", "zlib1g", "libssl3t64"),
)
SPARE_KIB = 6 << 20  # for what the tests write
KEPT = 3  # of each kind: a branch or two, and a Python or two
WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# Packages of .venv that no test in the guest imports, and large.
HOST_ONLY = ("mypy*", "ruff*", "pip", "pip-*", "codespell*", "grimp*")
PYTHON_WITHOUT = ("site-packages", "test", "tests", "*.a", "idlelib", "tkinter", "ensurepip")
SERVICE = """\
[Unit]
Description=The tests of cais
After=basic.target dbus.socket
Wants=dbus.socket

[Service]
Type=oneshot
RuntimeDirectory=sources
ExecStartPre=/bin/mount -o ro /dev/vdc /run/sources
ExecStart=/bin/sh /run/sources/guest_service.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
"""
# Neither is of use in a machine that lives for a minute, and both take a while to start.
MASKED = ("apparmor.service", "systemd-timesyncd.service", "systemd-networkd-wait-online.service")


class System:
    """What QEMU boots: paths of files that are not written to."""

    __slots__ = ("disk", "initrd", "kernel")

    def __init__(self, directory: Path) -> None:
        self.kernel = directory / "kernel"
        self.initrd = directory / "initrd"
        self.disk = directory / "disk.img"


def system() -> System:
    """Return the guest's installation, made now if it is not there. Blocks: about a minute."""
    distribution = platform.freedesktop_os_release()
    packages = _known([KERNELS[distribution["ID"]], *PACKAGES, *_python_packages()])
    recipe = [distribution["ID"], distribution["VERSION_CODENAME"], *packages, *MASKED, SERVICE]
    recipe.append(str(SPARE_KIB))
    directory = CACHE / f"system-{_digest(recipe)}"
    if not directory.exists():
        with _being_made(directory) as unfinished:
            unfinished.mkdir()
            _install(unfinished, distribution["VERSION_CODENAME"], packages)
    keep_newest(directory, "system-*")
    return System(directory)


def tools() -> Path:
    """Return the disk with .venv and its Python, made now if it is not there."""
    places = [str(CHECKOUT / ".venv")]
    if not _is_packaged_python():
        places.append(sys.base_prefix)
    stamp = CHECKOUT / ".venv/cais-dev.stamp"
    recipe = [
        *places,
        sys.version,
        *HOST_ONLY,
        *PYTHON_WITHOUT,
        stamp.read_text() if stamp.exists() else "",
    ]
    if docker := shutil.which("docker", path=f"{CHECKOUT}/.cache/bin:{os.environ['PATH']}"):
        recipe += [docker, str(os.stat(docker).st_mtime_ns)]
    disk = CACHE / f"tools-{_digest(recipe)}.img"
    if not disk.exists():
        with _being_made(disk) as unfinished, tempfile.TemporaryDirectory() as staging:
            for place, without in zip(places, (HOST_ONLY, PYTHON_WITHOUT), strict=False):
                ignore = shutil.ignore_patterns(*without)
                shutil.copytree(place, staging + place, symlinks=True, ignore=ignore)
            Path(staging, "bin").mkdir()
            if docker:
                shutil.copy2(docker, f"{staging}/bin/docker")
            Path(staging, "places").write_text("".join(f"{place}\n" for place in places))
            make_disk(staging, unfinished)
    keep_newest(disk, "tools-*")
    return disk


def keep_newest(used: Path, pattern: str, count: int = KEPT) -> None:
    """Note that ``used`` is used now, and delete what is like it but for the ``count`` newest."""
    os.utime(used)
    alike = sorted(used.parent.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in alike[count:]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_disk(source: str, disk: Path, spare_kib: int = 0) -> None:
    """Make an ext4 file system out of a directory; what is spare takes no place here."""
    used = int(subprocess.check_output(["du", "-sk", source], text=True).split()[0])
    inodes = sum(len(names) + 1 for _, *entries in os.walk(source) for names in entries)
    command = [
        *("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"),
        *(
            "-N",
            str(inodes + spare_kib // 16 + 1000),
            "-d",
            source,
            str(disk),
            f"{used // 3 * 4 + 20_000 + spare_kib}k",
        ),
    ]
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=quiet, stdout=quiet)


def _install(directory: Path, codename: str, packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="cais-guest-") as root:
        os.chmod(root, 0o755)
        command = [
            # In namespaces of its own nothing is left of it, wherever it is interrupted.
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in WITHOUT),
            *(f"--include={','.join(packages)}", codename, root, *_package_sources()),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        units = Path(root, "etc/systemd/system")
        (units / "cais-tests.service").write_text(SERVICE)
        for unit in MASKED:
            (units / unit).symlink_to("/dev/null")
        for kind, name in (("vmlinuz", "kernel"), ("initrd.img", "initrd")):
            (image,) = Path(root, "boot").glob(f"{kind}-*")
            shutil.copyfile(image, directory / name)
            image.unlink()
        make_disk(root, directory / "disk.img", SPARE_KIB)


def _package_sources() -> list[str]:
    """Return the lines of this machine's package sources that are its distribution's own."""
    name = platform.freedesktop_os_release()["ID"].capitalize()
    shape = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", shape, "Created-By: Packages"]
    lines = subprocess.check_output([*command, f"Origin: {name}"], text=True).splitlines()
    if not lines:
        raise RuntimeError(f"apt knows no package source of {name}: run apt-get update")
    return list(dict.fromkeys(lines))


def _known(packages: Iterable[str]) -> list[str]:
    """Return those that this distribution has; libraries go by several names, some lack CRIU."""
    command = ["apt-cache", "dumpavail"]
    available = subprocess.check_output(command, text=True, errors="replace")
    names = {line[9:] for line in available.splitlines() if line.startswith("Package: ")}
    return [package for package in packages if package in names]


def _is_packaged_python() -> bool:
    return sys.base_prefix == "/usr"


def _python_packages() -> list[str]:
    return [f"python{sys.version_info[0]}.{sys.version_info[1]}"] if _is_packaged_python() else []


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _being_made:  # noqa: N801 - reads as a verb
    """A path beside ``target`` that takes its place when the block ends well, else goes."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._unfinished = target.with_name(f"{target.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        return self._unfinished

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and not self._target.exists():
            self._unfinished.rename(self._target)
        elif self._unfinished.is_dir():
            shutil.rmtree(self._unfinished)
        else:
            self._unfinished.unlink(missing_ok=True)
