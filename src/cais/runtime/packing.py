"""Plans in packets, for a child that was cloned before they were made.

A plan is objects with slots, whose values are plain, such objects, or lists of them. A packet is
read by a copy of the process that wrote it, over a line nobody else has ever held. What cannot be
carried is refused, never left out: its container is cloned in the ordinary way.
"""

from __future__ import annotations

import marshal  # noqa: TID251 - faster than any other, and never on a disk
from operator import attrgetter

from cais.linux.credentials import Capabilities
from cais.linux.namespaces import CLONE_NEWPID
from cais.runtime.child import Inheritance
from cais.runtime.devices import Device
from cais.runtime.filters import Filter
from cais.runtime.launch import Stdio
from cais.runtime.mounts import MountPlan
from cais.runtime.plan import ContainerPlan
from cais.runtime.process_plan import ProcessPlan
from cais.runtime.root_plan import RootPlan
from cais.runtime.tuning import Tuning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Packed = tuple[int, list[Any], list[int], list[int]]

_KINDS: tuple[type[Any], ...] = (
    *(ContainerPlan, RootPlan, MountPlan, Device),
    *(ProcessPlan, Capabilities, Filter, Tuning),
)
_CARRIED = (  # of Inheritance
    *("cgroup_fds", "init_fd", "namespace_fds", "own_program", "pid_namespace_fd", "stdio"),
    "trees",
)
_LEFT_OUT = frozenset(("agent", "config"))  # of the parent alone: no child reads it
_NAMES = [tuple(name for name in kind.__slots__ if name not in _LEFT_OUT) for kind in _KINDS]
_FD_PLACES = [[names.index(name) for name in names if name.endswith("_fd")] for names in _NAMES]
_READERS: dict[type[Any], tuple[int, Callable[[Any], tuple[Any, ...]]]] = {
    kind: (number, attrgetter(*_NAMES[number])) for number, kind in enumerate(_KINDS)
}


def encode(*words: Any) -> bytes:  # noqa: ANN401 - as marshal takes them
    """Return plain values as bytes. ValueError: one of them is something else."""
    return marshal.dumps(words)


def decode(data: bytes) -> list[Any]:
    """Return the values of ``encode``."""
    return list(marshal.loads(data))  # noqa: S302 - written by the parent


def pack(plan: ContainerPlan | ProcessPlan, trees: Sequence[int] = ()) -> Packed:
    """Return the plan as plain values, unless an object in it is of no known kind.

    ValueError: it has a descriptor that is none of ``trees``, which are sent along.
    """
    return _plain(plan, trees)


def unpack(packed: Packed, trees: Sequence[int] = ()) -> Any:  # noqa: ANN401 - what was packed
    """Return the plan that was packed, with ``trees`` as they were received."""
    return _object(packed, trees)


def pack_given(given: Inheritance) -> tuple[tuple[Any, ...], list[int]]:
    """Return what ``unpack_given`` needs, and the descriptors to send along.

    ValueError: it has something that is not carried.
    """
    fresh = Inheritance(None, given.own_program)
    for name in Inheritance.__slots__:
        left, usual = getattr(given, name), getattr(fresh, name)
        if name not in _CARRIED and left != usual and (left or usual):  # () and [] are alike
            raise ValueError(f"{name} is not carried")
    stdio = given.stdio
    streams = [stdio.stdin, stdio.stdout, stdio.stderr] if stdio is not None else []
    inits = [given.init_fd] if given.init_fd >= 0 else []
    joined = [fd for fd, _ in given.namespace_fds]
    flags = [flag for _, flag in given.namespace_fds]
    counts = len(streams), len(inits), len(given.cgroup_fds), len(given.trees)
    fds = [*streams, *inits, *given.cgroup_fds, *given.trees, *joined]
    return (given.own_program, counts, flags), fds


def unpack_given(facts: tuple[Any, ...], fds: Sequence[int]) -> Inheritance:
    """Return what the child inherits, from the descriptors as it has received them."""
    own_program, (streams, inits, groups, trees), flags = facts
    rest = iter(fds)
    stdio = Stdio(next(rest), next(rest), next(rest)) if streams else None
    given = Inheritance(stdio, own_program)
    if inits:
        given.init_fd = next(rest)
    given.cgroup_fds = [next(rest) for _ in range(groups)]
    given.trees = [next(rest) for _ in range(trees)]
    given.namespace_fds = [(next(rest), flag) for flag in flags]
    for fd, flag in given.namespace_fds:
        if flag == CLONE_NEWPID:
            given.pid_namespace_fd = fd
    return given


def _plain(value: object, trees: Sequence[int]) -> Packed:
    """Return the object's kind and values, and which of those are objects, and lists of such.

    Descriptors are told by their places in ``trees``.
    """
    number, values_of = _READERS[type(value)]
    values = list(values_of(value))
    for place in _FD_PLACES[number]:
        if values[place] >= 0:
            values[place] = trees.index(values[place])
    objects: list[int] = []
    lists: list[int] = []
    for place, item in enumerate(values):
        if type(item) in _READERS:
            values[place] = _plain(item, trees)
            objects.append(place)
        elif type(item) is list and item and type(item[0]) in _READERS:
            values[place] = [_plain(each, trees) for each in item]
            lists.append(place)
    return number, values, objects, lists


def _object(packed: Packed, trees: Sequence[int]) -> Any:  # noqa: ANN401 - one of _KINDS
    number, values, objects, lists = packed
    for place in _FD_PLACES[number]:
        if values[place] >= 0:
            values[place] = trees[values[place]]
    for place in objects:
        values[place] = _object(values[place], trees)
    for place in lists:
        values[place] = [_object(each, trees) for each in values[place]]
    kind = _KINDS[number]
    made = object.__new__(kind)
    for name, value in zip(_NAMES[number], values, strict=True):
        setattr(made, name, value)
    return made
