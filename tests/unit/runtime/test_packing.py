"""Plans that go through a packet, and what is refused."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from cais.runtime import packing, plan
from cais.runtime.child import Inheritance
from cais.runtime.launch import Stdio

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "args": ["true", "x"],
        "cwd": "/",
        "env": ["A=1", "B="],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 7, "hard": 8}],
        "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/v", "source": "/", "options": ["rbind", "rprivate", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts")],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
        "maskedPaths": ["/proc/kcore"],
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
    },
}


def load(directory: Path) -> plan.ContainerPlan:
    (directory / "config.json").write_text(json.dumps(DOCUMENT))
    return plan.load_container("box", str(directory))


def sent(value: plan.ContainerPlan) -> Any:
    trees = [5, 7]
    (packed,) = packing.decode(packing.encode(packing.pack(value, trees)))
    return packing.unpack(packed, [105, 107])


def values(value: object) -> object:
    """Return all that is in an object of slots, as deep as it goes."""
    names = getattr(value, "__slots__", None)
    if names is not None:
        kept = [name for name in names if name not in ("agent", "config")]
        return type(value), [(name, values(getattr(value, name))) for name in kept]
    return [values(item) for item in value] if isinstance(value, list) else value


def test_a_plan_arrives_as_it_was(tmp_path: Path) -> None:
    container = load(tmp_path)
    assert values(sent(container)) == values(container)
    assert [entry.asks_propagation for entry in container.root.mounts] == [False, True]


def test_descriptors_in_a_plan_get_their_new_numbers(tmp_path: Path) -> None:
    container = load(tmp_path)
    first, second = container.root.mounts
    first.tree_fd, first.idmap_fd, second.idmap_fd = 5, 7, 7
    one, other = sent(container).root.mounts
    assert (one.tree_fd, one.idmap_fd) == (105, 107)
    assert (other.tree_fd, other.idmap_fd) == (-1, 107)


def test_a_descriptor_nobody_sends_along_is_refused(tmp_path: Path) -> None:
    container = load(tmp_path)
    container.root.mounts[1].tree_fd = 6
    with pytest.raises(ValueError, match="6 is not in list"):
        packing.pack(container, [5])


def test_an_unknown_object_in_a_plan_is_refused(tmp_path: Path) -> None:
    container = load(tmp_path)
    container.process.tuning = copy  # type: ignore[assignment]
    with pytest.raises(ValueError, match="unmarshallable"):
        packing.encode(packing.pack(container))


def test_descriptors_get_their_new_numbers() -> None:
    given = Inheritance(Stdio(5, 6, 7), (1, 2))
    given.init_fd = 8
    given.cgroup_fds = [9, 10]
    given.trees = [12, 13]
    given.namespace_fds = [(11, 0x40000000)]
    facts, fds = packing.pack_given(given)
    arrived = packing.unpack_given(facts, [fd + 100 for fd in fds])
    stdio = arrived.stdio
    assert stdio is not None
    assert (stdio.stdin, stdio.stdout, stdio.stderr, arrived.init_fd) == (105, 106, 107, 108)
    assert (arrived.cgroup_fds, arrived.namespace_fds) == ([109, 110], [(111, 0x40000000)])
    assert arrived.trees == [112, 113]
    assert arrived.own_program == (1, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hold_fd", 0), ("has_own_keyring", False), ("preserved", [5])],
)
def test_what_is_not_carried_is_refused(name: str, value: object) -> None:
    given = Inheritance(None, (1, 2))
    setattr(given, name, value)
    with pytest.raises(ValueError, match=name):
        packing.pack_given(given)
