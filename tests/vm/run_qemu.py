"""Run tests on a Debian kernel with systemd, cgroup v2 alone and AppArmor: a QEMU machine.

    python tests/vm/run_qemu.py [--machine=quick] [pytest's options] [tests]

Without tests it runs those that ``guest_tests.txt`` lists for the machine. The guest has this
checkout, read-only, and no network; its console is this program's output, and the exit status comes
back over a second serial line. By default the processor is emulated, so it works everywhere and
takes ten times as long; ``CAIS_VM_ACCEL=kvm`` uses the real one.

Needs: root (to build the guest); the `vm` packages of scripts/system-packages.sh.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import guest_disks
from guest_disks import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

QEMU = "qemu-system-x86_64"
LIST = Path(__file__).with_name("guest_tests.txt")
MACHINE, QUICK, NOWHERE = "--machine=", "quick", "nowhere"
MEMORY = "3G"
DEADLINE_S = 7200
PATIENCE = 8  # everything takes ten times as long as elsewhere, and the shortest deadline is 20 s
# Without what an emulated processor does slowly: strings a byte at a time, page tables of five
# levels, and the kernel's detours around faults that it does not have.
EMULATED = "max,-erms,-fsrm,-la57"
FAST_WHEN_EMULATED = "clearcpuid=rep_good mitigations=off"
SHARED = ("src", "tests", "pyproject.toml", "scripts")


def main(arguments: list[str]) -> int:
    """Build what is missing, boot, run pytest with ``arguments``, and return its exit status."""
    chosen = [word for word in arguments if word.startswith(MACHINE)]
    arguments = [word for word in arguments if word not in chosen]
    if all(word.startswith("-") for word in arguments):
        arguments += listed(chosen[-1].removeprefix(MACHINE) if chosen else QUICK)
    if reason := missing():
        sys.stderr.write(f"cannot run a virtual machine: {reason}\n")
        return 2
    system, tools = build()
    with tempfile.TemporaryDirectory(prefix="cais-vm-") as scratch:
        sources = _sources_disk(scratch, arguments)
        return _boot(system, [system.disk, tools, sources], Path(scratch, "result"))


def missing() -> str:
    """Return why no guest can be built or booted here; "" if one can."""
    if os.uname().machine != "x86_64":
        return "the guest is an x86-64 machine"
    if os.geteuid() != 0:
        return "building the guest needs root"
    absent = [name for name in (QEMU, "mmdebstrap", "mke2fs") if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def build() -> tuple[guest_disks.System, Path]:
    """Return the installation and the disk of tools, made now if they are not there. Blocks."""
    return guest_disks.system(), guest_disks.tools()


def machines() -> list[str]:
    """Return the names of the machines that together run the whole list."""
    return list(dict.fromkeys(name for name, _ in _lines() if name not in (QUICK, NOWHERE)))


def listed(machine: str) -> list[str]:
    """Return the tests of a machine, and what pytest is told to leave out."""
    tests = [path for name, path in _lines() if name == machine]
    if not tests:
        raise SystemExit(f"{LIST.name} has nothing for a machine called {machine!r}")
    return tests + [f"--deselect={path}" for name, path in _lines() if name == NOWHERE]


def _lines() -> Iterator[tuple[str, str]]:
    for line in LIST.read_text().splitlines():
        if words := line.partition("#")[0].split():
            name, path = words
            yield name, path


def _sources_disk(scratch: str, arguments: list[str]) -> Path:
    staging = Path(scratch, "sources")
    (staging / "checkout/.venv").mkdir(parents=True)
    for name in SHARED:
        target = staging / "checkout" / name
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, target, symlinks=True)
        else:
            shutil.copy2(CHECKOUT / name, target)
    source = staging / "checkout/src"  # compiling takes most of a start there
    compileall.compile_dir(source, quiet=2, stripdir=str(staging / "checkout"), prependdir=CHECKOUT)
    shutil.copy2(Path(__file__).with_name("guest_service.sh"), staging)
    options = ["-q", "-p", "no:cacheprovider", "--color=no"]
    # Hypothesis writes; the checkout is read-only.
    settings = (f"CAIS_TEST_PATIENCE={PATIENCE}", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis")
    command = ["env", *settings, sys.executable, "-B", "-m", "pytest", *options, *arguments]
    (staging / "command").write_text("\n".join([str(CHECKOUT), *command]) + "\n")
    disk = Path(scratch, "sources.img")
    guest_disks.make_disk(str(staging), disk)
    return disk


def _boot(system: guest_disks.System, disks: list[Path], result: Path) -> int:
    accelerator = os.environ.get("CAIS_VM_ACCEL", "tcg")
    cmdline = (
        "root=/dev/vda rw console=ttyS0 panic=-1 quiet loglevel=4 systemd.show_status=false "
        "systemd.unit=cais-tests.service apparmor=1 security=apparmor "
        "no_timer_check "  # its timer may be late: on a busy host that is no broken machine
    )
    if accelerator == "tcg":
        cmdline += FAST_WHEN_EMULATED
    command = [
        *(QEMU, "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else EMULATED),
        *("-m", MEMORY, "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-serial", f"file:{result}", "-no-reboot"),
        *("-kernel", str(system.kernel), "-initrd", str(system.initrd), "-append", cmdline),
    ]
    for disk in disks:  # what the guest writes is gone with it
        command += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"the guest was not finished after {DEADLINE_S} s\n")
        return 3
    text = result.read_text().strip() if result.exists() else ""
    if not text.startswith("exit-status="):
        sys.stderr.write("the guest ended without a status\n")
        return 3
    return int(text.removeprefix("exit-status="))


def _stop(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))
