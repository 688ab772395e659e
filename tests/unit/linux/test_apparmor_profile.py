"""The default AppArmor profile: which paths its patterns refuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cais.errors import UnavailableError
from cais.linux import apparmor

if TYPE_CHECKING:
    from pathlib import Path

TEXT = apparmor.profile_text("docker-default", "unconfined")


def refused(path: str, access: str) -> bool:
    """Whether a deny rule of the profile matches, by apparmor.d(5)'s reading of patterns."""
    rules = re.findall(r"deny (/\S+) (\w+),", TEXT)
    return any(access in letters and _matches(pattern, path) for pattern, letters in rules)


def _matches(pattern: str, path: str) -> bool:
    parts = re.split(r"(\*\*|\*|\?|\[[^]]*\])", pattern)
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    regex = "".join(known.get(part, part if part[:1] == "[" else re.escape(part)) for part in parts)
    return re.fullmatch(regex, path) is not None


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/kcore", "/proc/mtrr", "/proc/sys/vm/swappiness",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/s", "/proc/sys/kernel/shell",
        "/proc/sys/kernel/random/uuid", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/k/x",
        "/proc/irq/1/affinity", "/proc/s/x", "/proc/sysvipc/shm", "/proc/scsi/scsi",
        "/sys/power/state", "/sys/f/x", "/sys/fs/ext4/x", "/sys/fs/c/x", "/sys/fs/cgroup2/x",
        "/sys/firmware/efi/x", "/sys/kernel/uevent_helper", "/sys/module/x/parameters/y",
    ],
)  # fmt: skip
def test_writing_is_refused(path: str) -> None:
    assert refused(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/oom_score_adj", "/proc/42/attr/current", "/proc/42/task/43/comm",
        "/proc/sys/kernel/shmmax", "/proc/sys/kernel/shm_rmid_forced",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/a/b/memory.max", "/etc/passwd", "/dev/null",
    ],
)  # fmt: skip
def test_writing_is_allowed(path: str) -> None:
    assert not refused(path, "w")


def test_what_may_not_even_be_read() -> None:
    for path in ("/proc/kcore", "/sys/firmware/acpi/x", "/sys/kernel/security/apparmor/profiles"):
        assert refused(path, "r")
    for path in ("/proc/meminfo", "/proc/sys/kernel/core_pattern", "/sys/class/net/lo/mtu"):
        assert not refused(path, "r")


def test_signals_come_from_the_engine() -> None:
    text = apparmor.profile_text("p", "/usr/bin/caisd")
    assert "signal (receive) peer=/usr/bin/caisd," in text
    assert "signal (send, receive) peer=p," in text
    assert TEXT.count("peer=unconfined") == 1


def test_a_refusal_of_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = tmp_path / "parser"
    parser.write_text("#!/bin/sh\ncat >/dev/null\necho no such thing >&2\nexit 1\n")
    parser.chmod(0o755)
    monkeypatch.setattr(apparmor, "_PARSERS", (str(parser),))
    with pytest.raises(UnavailableError, match=r"parser --skip-cache --replace` failed: no such"):
        apparmor.load(TEXT)
    monkeypatch.setattr(apparmor, "_PARSERS", ())
    with pytest.raises(UnavailableError, match="not installed"):
        apparmor.load(TEXT)
