"""A18 (CVE-2016-3697, CVE-2024-40635): a number that is no user must not become root.

4294967295 is -1 to setresuid(2): keep the id there is, which is root's. runc refuses it too.
"""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from cais.linux import credentials
from cais.linux.syscalls import KernelError
from cais.runtime.launch import LaunchError
from cais.spec.runtime import InvalidConfigError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

USERS: list[dict[str, Any]] = [
    {"uid": 2**32 - 1, "gid": 7},
    {"uid": 7, "gid": 2**32 - 1},
    {"uid": 2**31, "gid": 7},
    {"uid": 7, "gid": 7, "additionalGids": [2**32 - 1]},
    {"uid": 2**32, "gid": 7},
    {"uid": -1, "gid": 7},
]
WHERE = r"process\.user\.(uid|gid|additionalGids\[0\]): must be in 0\.\.2147483647"


@pytest.mark.parametrize("user", USERS, ids=str)
def test_cve_2024_40635_no_document_makes_root_of_it(tmp_path: Path, user: dict[str, Any]) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            with pytest.raises(InvalidConfigError, match=WHERE):
                bundle.execute(init, "id", process={"user": user})
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()
        bundle.process["user"] = user
        with pytest.raises(InvalidConfigError, match=WHERE):
            bundle.run("id")

    isolated(body)


@pytest.mark.parametrize("member", ["uid", "gid"])
def test_no_device_is_left_to_root_instead(tmp_path: Path, member: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        device = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, member: 2**32 - 1}
        bundle.linux["devices"] = [device]
        with pytest.raises(InvalidConfigError, match=rf"devices\[0\]\.{member}: must be in"):
            bundle.run("true")

    isolated(body)


@pytest.mark.parametrize("ids", [(-1, 7), (2**32 - 1, 7), (7, 2**32 - 1), (7, -1)])
def test_the_last_step_refuses_it_whatever_was_checked_before(ids: tuple[int, int]) -> None:
    def body() -> None:
        before = os.getresuid(), os.getresgid()
        with pytest.raises(KernelError, match=re.escape("become ")):
            credentials.become(*ids, [])
        assert (os.getresuid(), os.getresgid()) == before

    isolated(body)


def test_more_groups_than_there_is_room_for(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["user"] = {"uid": 7, "gid": 7, "additionalGids": list(range(65537))}
        with pytest.raises(LaunchError, match="setgroups: invalid argument"):
            bundle.run("id")

    isolated(body)
