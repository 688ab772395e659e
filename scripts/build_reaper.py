"""Compile src/cais/runtime/reaper.c for every machine whose compiler is installed.

Writes src/cais/runtime/reaper_programs.py; machines without a compiler here keep their program.
Debian: gcc, gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOM = Path(__file__).parent.parent / "src/cais/runtime"
MACHINES = ("x86_64", "aarch64")
FLAGS = (
    *("-Os", "-std=c11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static"),
    *("-fno-pic", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    "-fno-unwind-tables",
    *("-fno-ident", "-fcf-protection=none", "-s"),
    *("-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,norelro"),
    "-Wl,-z,max-page-size=4096",
)
HEADER = '''"""Written by scripts/build_reaper.py from reaper.c: do not edit."""

# The ELF program of the init for each machine (os.uname().machine), in hex.
PROGRAMS = {
'''


def compile_for(machine: str) -> bytes | None:
    """Return the program, or None without a compiler for the machine."""
    compiler = shutil.which(f"{machine}-linux-gnu-gcc")
    if compiler is None:
        return None
    flags = [flag for flag in FLAGS if machine == "x86_64" or "cf-protection" not in flag]
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "reaper"
        subprocess.run([compiler, *flags, "-o", output, ROOM / "reaper.c"], check=True)
        return output.read_bytes()


def main() -> None:
    """Build all, keep what cannot be built."""
    sys.path.insert(0, str(ROOM.parent.parent))
    try:
        from cais.runtime.reaper_programs import PROGRAMS as known  # noqa: N811
    except ImportError:
        known = {}
    lines = [HEADER]
    for machine in MACHINES:
        program = compile_for(machine)
        text = program.hex() if program else known.get(machine)
        if text is None:
            continue
        lines.append(f'    "{machine}": (\n')
        lines += [f'        "{part}"\n' for part in textwrap.wrap(text, 80)]
        lines.append("    ),\n")
    lines.append("}\n")
    (ROOM / "reaper_programs.py").write_text("".join(lines))


if __name__ == "__main__":
    main()
