"""Whether CRIU works on this kernel, which it tests itself."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess


@functools.cache
def why_not() -> str:
    """Return why CRIU cannot work here; "" if it can. Blocks: while CRIU looks."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("criu") is None:
        return "needs criu"
    done = subprocess.run(["criu", "check"], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
    return f"criu does not work on this kernel: {(lines or ['?'])[-1]}" if done.returncode else ""
