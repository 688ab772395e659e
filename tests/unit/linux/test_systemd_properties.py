"""OCI resources as unit properties; names of slices and scopes."""

from __future__ import annotations

from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from cais.linux import namespaces
from cais.linux.cgroups import Hierarchy, expand_slice, is_systemd_path, open_cgroup, systemd
from cais.linux.cgroups.systemd_properties import bits, devices, limits

INFINITY = 2**64 - 1
V2 = Hierarchy({}, "/nowhere")


def told(resources: Any, version: int = 252) -> dict[str, Any]:
    pairs = limits(resources, "/nowhere/group", version)
    assert len(dict(pairs)) == len(pairs)
    return {name: variant.value for name, variant in pairs}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 64}}, {"MemoryMax": 64}),
        ({"memory": {"limit": 64, "swap": 96}}, {"MemoryMax": 64, "MemorySwapMax": 32}),
        ({"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}),
        ({"memory": {"reservation": 5}}, {"MemoryLow": 5}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
        ({"cpu": {"idle": 1}}, {"CPUWeight": 0}),
        ({"cpu": {"quota": -1, "period": 5000}},
         {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 5000}),
        # 333 333.3 microseconds a second, rounded up to a whole hundredth.
        ({"cpu": {"quota": 1000, "period": 3000}},
         {"CPUQuotaPerSecUSec": 340_000, "CPUQuotaPeriodUSec": 3000}),
        ({"cpu": {"cpus": "0-2,9", "mems": "0"}},
         {"AllowedCPUs": b"\x07\x02", "AllowedMemoryNodes": b"\x01"}),
        ({"pids": {"limit": 7}}, {"TasksMax": 7}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        ({"blockIO": {"weight": 1000}}, {"IOWeight": 10_000}),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}, {}),
        ({"unified": {"memory.high": "9", "memory.min": "max", "io.latency": "x"}},
         {"MemoryHigh": 9, "MemoryMin": INFINITY}),
        ({"pids": {"limit": 7}, "unified": {"pids.max": "8"}}, {"TasksMax": 8}),
        ({}, {}),
    ],
)  # fmt: skip
def test_limits(resources: Any, expected: dict[str, Any]) -> None:
    assert told(resources) == expected


def test_an_old_systemd_is_not_told_what_it_does_not_know() -> None:
    resources = {"cpu": {"cpus": "0", "quota": 1000, "period": 10_000, "idle": 1}}
    assert told(resources, 239) == {"CPUQuotaPerSecUSec": 100_000}


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1-x", "9999"])
def test_no_list_of_numbers(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        bits(text)


def test_no_number() -> None:
    with pytest.raises(InvalidArgumentError, match=r"invalid value 'lots' of pids\.max"):
        told({"unified": {"pids.max": "lots"}})


@given(st.sets(st.integers(0, 300)))
def test_bits_have_the_lowest_byte_first(numbers: set[int]) -> None:
    mask = int.from_bytes(bits(",".join(map(str, sorted(numbers)))), "little")
    assert {number for number in range(301) if mask >> number & 1} == numbers


def test_devices_are_an_allow_list() -> None:
    rule: Any = {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "wr"}
    policy, cleared, allowed = devices([rule])
    assert (policy[0], policy[1].value) == ("DevicePolicy", "strict")
    assert (cleared[0], cleared[1].value) == ("DeviceAllow", [])
    assert ("/dev/block/8:1", "rw") in allowed[1].value
    assert {("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm")} <= set(allowed[1].value)
    assert any(name.startswith("char-pt") for name, _ in allowed[1].value)


def test_every_device() -> None:
    rule: Any = {"allow": True, "access": "rwm"}
    assert [(name, variant.value) for name, variant in devices([rule])] == [
        ("DevicePolicy", "auto"),
        ("DeviceAllow", []),
    ]


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("a-b.slice:cais:x", "/a.slice/a-b.slice/cais-x.scope"),
        ("system.slice:docker:x_1", "/system.slice/docker-x_1.scope"),
        (":cais:x", "/system.slice/cais-x.scope"),
        ("-.slice::x", "/x.scope"),
    ],
)
def test_scopes(path: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "uid_outside", lambda: 0)
    assert is_systemd_path(path)
    assert open_cgroup(V2, path).path == group


class UserManager:
    """A user's systemd where somebody has moved it; or there is none."""

    def __init__(self, *, runs: bool) -> None:
        self.runs = runs

    def __call__(self) -> Self:
        if not self.runs:
            raise UnavailableError("no systemd")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def group(self) -> str:
        return "/moved.slice/mine"


@pytest.mark.parametrize(
    ("runs", "group"),
    [(True, "/moved.slice/mine"), (False, "/user.slice/user-7.slice/user@7.service")],
)
@pytest.mark.parametrize("uid", [7, 0])
def test_scopes_of_a_user_who_may_be_root_in_a_namespace(
    uid: int, group: str, monkeypatch: pytest.MonkeyPatch, *, runs: bool
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr(namespaces, "uid_outside", lambda: 7)
    monkeypatch.setattr(systemd, "is_running", lambda: True)
    monkeypatch.setattr(systemd, "Manager", UserManager(runs=runs))
    assert open_cgroup(V2, ":cais:x").path == f"{group}/user.slice/cais-x.scope"
    assert open_cgroup(V2, "a.slice:cais:x").path == f"{group}/a.slice/cais-x.scope"


@pytest.mark.parametrize(
    "path", ["a:b:c", "a-.slice:b:c", "-a.slice:b:c", ".slice:b:c", "a.slice:b:c d", "a.slice::.c"]
)
def test_no_scopes(path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        open_cgroup(V2, path)


@pytest.mark.parametrize("name", ["a:b.slice", "a/b.slice", "a", ""])
def test_no_slices(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid slice name"):
        expand_slice(name)


def test_a_scope_needs_v2() -> None:
    with pytest.raises(UnsupportedError, match="systemd cgroup driver needs"):
        open_cgroup(Hierarchy({"memory": "/m"}, "/u"), "a.slice:b:c")


def test_paths_are_not_units() -> None:
    for path in ("/a/b", "a:b", "/a:b:c", "a:b:c:d"):
        assert not is_systemd_path(path)
    assert expand_slice("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
