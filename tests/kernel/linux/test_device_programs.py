"""Loading the programs of device limits, where signals come all the time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cais.linux.cgroups import bpf, devices_v2
from cais.linux.cgroups.device_rules import resolve
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from cais.spec.runtime import DeviceRule

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
RULES: list[DeviceRule] = [
    {"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rwm"}
    for minor in range(200)
]


def test_a_waiting_signal_stops_no_verification() -> None:
    def body() -> None:
        code = devices_v2.assemble(resolve(RULES))
        hits: list[int] = []
        signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        for _ in range(300):
            os.close(bpf.load_device_program(code))
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert hits
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    isolated(body)
