"""A process in namespaces of its own, whose namespaces a container can join."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = 100000  # its user 0 on the host, if it has a user namespace


@contextmanager
def holder(*flags: str) -> Iterator[int]:
    """Run a process in namespaces of its own; the pid is that of the process inside."""
    command = ["unshare", *flags, "--fork", "--kill-child", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (text,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pid = int(text)
        if "--user" in flags:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{name}").write_text(f"0 {BASE} 65536")
        try:
            yield pid
        finally:
            process.kill()
            process.wait()
            os.waitpid(pid, 0)  # the orphan came to us
