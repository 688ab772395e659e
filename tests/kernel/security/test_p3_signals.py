"""P3: signals that interrupt system calls break no start and no exec (PEP 475: not for ctypes)."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CYCLES = 60
ENOUGH_S = 3


@contextmanager
def interrupted() -> Iterator[list[int]]:
    """Deliver SIGALRM every millisecond; the list grows with each."""
    hits: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield hits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_containers_start_run_and_go_under_a_rain_of_signals(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["mounts"] += [
            {"destination": f"/m{number}", "type": "tmpfs", "source": "tmpfs"}
            for number in range(10)
        ]
        deadline = time.monotonic() + ENOUGH_S
        done = 0
        with interrupted() as hits:
            while done < CYCLES and (done < 10 or time.monotonic() < deadline):
                result = bundle.shell(f"echo {done}; exit {done % 100}")
                assert (result.code, result.stdout) == (done % 100, f"{done}\n"), result.stderr
                done += 1
        assert len(hits) > done  # every start was interrupted, on the average
        assert result.warnings == []

    isolated(body, timeout_s=60)


def test_processes_are_added_under_a_rain_of_signals(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        deadline = time.monotonic() + ENOUGH_S
        with Capture() as capture, interrupted() as hits:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            done = 0
            while done < CYCLES and (done < 10 or time.monotonic() < deadline):
                assert bundle.execute(init, "sh", "-c", f"exit {done}").code == done
                done += 1
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            assert end(init) == 137
            bundle.destroy()
        assert len(hits) > done

    isolated(body, timeout_s=60)
