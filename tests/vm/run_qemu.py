"""Run tests on a Debian kernel with systemd, cgroup v2 alone and AppArmor: a QEMU machine.

    python tests/vm/run_qemu.py [--quick] [pytest's options] [tests]

Without tests it runs what ``guest_tests.txt`` lists. The guest has this checkout, read-only, and
no network; its console is this program's output, and the exit status comes back over a second
serial line. By default the processor is emulated, so it works everywhere and takes ten times as
long; ``CAIS_VM_ACCEL=kvm`` uses the real one.

Needs: root (to build the guest); the `vm` packages of scripts/system-packages.sh.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import guest_disks
from guest_disks import CHECKOUT

QEMU = "qemu-system-x86_64"
LIST = Path(__file__).with_name("guest_tests.txt")
MEMORY = "1536M"
DEADLINE_S = 3600
TEST_LIMIT_S = 600
PATIENCE = 8  # everything takes ten times as long as elsewhere, and the shortest deadline is 20 s
SHARED = ("src", "tests", "pyproject.toml", "scripts")


def main(arguments: list[str]) -> int:
    """Build what is missing, boot, run pytest with ``arguments``, and return its exit status."""
    quick = "--quick" in arguments
    arguments = [word for word in arguments if word != "--quick"]
    if all(word.startswith("-") for word in arguments):
        arguments += listed(quick=quick)
    if reason := missing():
        sys.stderr.write(f"cannot run a virtual machine: {reason}\n")
        return 2
    system, tools = guest_disks.system(), guest_disks.tools()
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


def listed(*, quick: bool) -> list[str]:
    """Return the test files of the list: the quick ones, or all."""
    lines = (line.partition("#")[0].split() for line in LIST.read_text().splitlines())
    return [line[1] for line in lines if line and (line[0] == "quick" or not quick)]


def _sources_disk(scratch: str, arguments: list[str]) -> Path:
    staging = Path(scratch, "sources")
    (staging / "checkout/.venv").mkdir(parents=True)
    for name in SHARED:
        target = staging / "checkout" / name
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, target, symlinks=True)
        else:
            shutil.copy2(CHECKOUT / name, target)
    shutil.copy2(Path(__file__).with_name("guest_service.sh"), staging)
    options = ["-q", "-p", "no:cacheprovider", "--color=no", "-o", f"timeout={TEST_LIMIT_S}"]
    patience = f"CAIS_TEST_PATIENCE={PATIENCE}"
    command = ["env", patience, sys.executable, "-B", "-m", "pytest", *options, *arguments]
    (staging / "command").write_text("\n".join([str(CHECKOUT), *command]) + "\n")
    disk = Path(scratch, "sources.img")
    guest_disks.make_disk(str(staging), disk)
    return disk


def _boot(system: guest_disks.System, disks: list[Path], result: Path) -> int:
    accelerator = os.environ.get("CAIS_VM_ACCEL", "tcg")
    cmdline = (
        "root=/dev/vda rw console=ttyS0 panic=-1 quiet loglevel=4 systemd.show_status=false "
        "systemd.unit=cais-tests.service apparmor=1 security=apparmor "
        "no_timer_check"  # its timer may be late: on a busy host that is no broken machine
    )
    command = [
        *(QEMU, "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max"),
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
