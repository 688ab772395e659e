"""A15, A25, A26: the calls an attack begins with, made from a default container.

Each is made through all three doors of an x86-64 kernel: its own numbers, x32's, and i386's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from docker_bundle import in_container
from python_inside import ask, needs_x86_64

from cais.spec.container import HostConfig

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_x86_64
NEW_NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# SECURITY.md 3.6, section 1 row A25: (x86-64, i386)
NUMBERS = {
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 374),
    "keyctl": (250, 288),
    "add_key": (248, 286),
    "bpf": (321, 357),
    "perf_event_open": (298, 336),
    "mount": (165, 21),
    "umount2": (166, 52),
    "pivot_root": (155, 217),
    "setns": (308, 346),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "open_by_handle_at": (304, 342),
    "kexec_load": (246, 283),
    "reboot": (169, 88),
    "init_module": (175, 128),
    "iopl": (172, 110),
    "swapon": (167, 87),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "quotactl": (179, 131),
}


def inside(
    directory: Path,
    program: str,
    check: Callable[[Any], None],
    host_config: HostConfig | None = None,
) -> None:
    """Run a program in a default container, or one of these options; check what it printed."""

    in_container(directory, lambda bundle: check(ask(bundle, program)), host_config)


def test_cve_2017_16539_calls_that_are_blocked_in_every_way_to_make_them(tmp_path: Path) -> None:
    program = f"""
numbers = {NUMBERS!r}
found = {{name: [call(a), call(a | 0x40000000), int80(b)] for name, (a, b) in numbers.items()}}
print(json.dumps(found))
"""

    def check(found: dict[str, list[str]]) -> None:
        assert found == dict.fromkeys(NUMBERS, ["EPERM"] * 3)

    inside(tmp_path, program, check)


def test_copy_fail_families_of_sockets(tmp_path: Path) -> None:
    """EPERM, not EAFNOSUPPORT: the filter refuses before the kernel looks for the family."""
    program = """
def opened(family, kind):
    return [call(41, family, kind, 0), call(41 | 0x40000000, family, kind, 0),
            int80(359, family, kind)]
families = ((38, 5), (40, 1), (1, 1))
print(json.dumps({str(family): opened(family, kind) for family, kind in families}))
"""

    def check(found: dict[str, list[str]]) -> None:
        assert found["38"] == found["40"] == ["EPERM"] * 3
        assert found["1"][0] == found["1"][2] == "ok"

    inside(tmp_path, program, check)


def test_cve_2022_0492_no_namespace_of_its_own(tmp_path: Path) -> None:
    """The way to a writable release_agent begins with a user namespace."""
    agents = sorted(Path("/sys/fs/cgroup").glob("*/release_agent"))
    before = [path.read_text() for path in agents]
    program = f"""
flags = {NEW_NAMESPACES!r}
found = {{name: [call(272, flag), call(56, flag | 17, 0, 0, 0, 0), int80(310, flag),
                int80(120, flag | 17)] for name, flag in flags.items()}}
found["clone3"] = [call(435, 0, 0), int80(435)]
arguments = (ctypes.c_uint64 * 11)(0x10000000)
arguments[4] = 17
found["clone3 user"] = [call(435, ctypes.addressof(arguments), 88)]
print(json.dumps(found))
"""

    def check(found: dict[str, list[str]]) -> None:
        assert found.pop("clone3") == ["ENOSYS", "ENOSYS"]
        assert found.pop("clone3 user") == ["ENOSYS"]
        assert found == dict.fromkeys(NEW_NAMESPACES, ["EPERM"] * 4)

    inside(tmp_path, program, check)
    assert [path.read_text() for path in agents] == before


HANDLE = """
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_uint * 4)]
where = os.open("/usr", os.O_RDONLY)
found = []
for inode in range(2, 6):
    handle = Handle(8, 1, (inode, 0))
    found.append(call(304, where, ctypes.addressof(handle), os.O_RDONLY))
print(json.dumps(found))
"""


@pytest.mark.parametrize("security", [[], ["seccomp=unconfined"]])
def test_cve_2014_3519_shocker_no_file_by_its_handle(tmp_path: Path, security: list[str]) -> None:
    """Refused by the filter, and without one for want of the capability."""

    def check(found: list[str]) -> None:
        assert found == ["EPERM"] * 4

    inside(tmp_path, HANDLE, check, HostConfig(security_opt=security))


def test_what_shocker_finds_with_the_capability(tmp_path: Path) -> None:
    """The attack above is a real one: the capability that is not given makes it work."""

    def check(found: list[str]) -> None:
        assert "EPERM" not in found

    inside(tmp_path, HANDLE, check, HostConfig(cap_add=["DAC_READ_SEARCH"]))
