"""How a process shares the machine: its scheduling policy, its processors, its memory nodes.

Imported by the parent: by one that starts a single container only for a document that asks for one
of these. The policy is given to the process that will be the program: one with RESET_ON_FORK, or a
deadline, does not survive the clone by which an exec is born inside, so there the parent sets it
(``set_scheduling``).

Spec: OCI runtime-spec 1.3, config.md "Process" (scheduler, execCPUAffinity), config-linux.md
"Memory policy".
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError
from cais.linux import scheduling
from cais.linux.scheduling import SchedulingAttributes
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.spec.runtime import ExecCpuAffinity, MemoryPolicy, Process, Scheduler

_MAX_CPUS = 8192  # the largest CONFIG_NR_CPUS
_NICE = range(-20, 20)
_NODELESS = ("MPOL_DEFAULT", "MPOL_LOCAL")


class Tuning:
    """The decisions, plain values all; every method is a system call or two."""

    __slots__ = ("_attributes", "_final", "_initial", "_memory")

    def __init__(self, process: Process, memory: MemoryPolicy | None, *, is_exec: bool) -> None:
        """Parse; the affinity is of an exec alone.

        Raises:
            InvalidArgumentError: a value no kernel takes.

        """
        self._attributes = _parse_scheduler(process.get("scheduler"))
        affinity = process.get("execCPUAffinity") if is_exec else None
        self._initial, self._final = _parse_affinity(affinity)
        self._memory = _parse_memory_policy(memory)

    @property
    def has_initial_cpus(self) -> bool:
        """Whether the process must run somewhere before it is in its control group."""
        return bool(self._initial)

    def use_initial_cpus(self) -> None:
        """Go to the processors named for the time before the control group is entered."""
        if self._initial:
            _set_cpus(self._initial)

    def use_final_cpus(self) -> None:
        """Go to those named for afterwards: without any, to all the control group allows."""
        if self._final:
            _set_cpus(self._final)
        elif self._initial:
            _set_cpus(range(_MAX_CPUS))

    def set_memory_policy(self) -> None:
        """Set where the caller's memory comes from."""
        if self._memory is None:
            return
        try:
            scheduling.set_memory_policy(*self._memory)
        except OSError as error:
            raise _failure("set memory policy", error) from None

    def set_scheduling(self, pid: int = 0) -> None:
        """Set the scheduling policy of ``pid`` (0: the caller)."""
        if self._attributes is None:
            return
        try:
            scheduling.set_scheduling(pid, SchedulingAttributes(**self._attributes))
        except OSError as error:
            raise _failure("set scheduler", error) from None


def parse_numbers(text: str, limit: int, what: str) -> list[int]:
    """Return the numbers of a list such as ``0-3,7``, each below ``limit``.

    Raises:
        InvalidArgumentError: no such list; ``what`` names its member.

    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        low, dash, high = part.partition("-")
        first, last = _number(low, limit), _number(high if dash else low, limit)
        if part and (first < 0 or last < first):
            raise InvalidArgumentError(f"invalid {what}: {text[:64]!r}")
        numbers.update(range(first, last + 1) if part else ())
    return sorted(numbers)


def _number(text: str, limit: int) -> int:
    """Return the number, -1 if it is none or too large."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(limit))
    return int(text) if is_number and int(text) < limit else -1


def _parse_scheduler(document: Scheduler | None) -> dict[str, int] | None:
    if document is None:
        return None
    policy = document["policy"]
    if policy not in scheduling.POLICIES:
        raise InvalidArgumentError(f"invalid scheduler policy: {policy!r:.64}")
    _check_scheduler(document, policy)
    return {
        "policy": scheduling.POLICIES[policy],
        "flags": _bits(document.get("flags", ()), scheduling.POLICY_FLAGS, "scheduler flag"),
        "nice": document.get("nice", 0),
        "priority": document.get("priority", 0),
        "runtime": document.get("runtime", 0),
        "deadline": document.get("deadline", 0),
        "period": document.get("period", 0),
    }


def _check_scheduler(document: Scheduler, policy: str) -> None:
    if document.get("nice", 0) not in _NICE:
        raise InvalidArgumentError(f"invalid scheduler.nice: {document['nice']}")
    if document.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise InvalidArgumentError(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
        )
    if document.get("priority", 0) < 0:
        raise InvalidArgumentError(f"invalid scheduler.priority: {document['priority']}")
    times = [document.get(name) for name in ("runtime", "deadline", "period")]
    if any(times) and policy != "SCHED_DEADLINE":
        raise InvalidArgumentError(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
        )


def _parse_affinity(document: ExecCpuAffinity | None) -> tuple[list[int], list[int]]:
    document = document or {}
    initial = parse_numbers(document.get("initial", ""), _MAX_CPUS, "execCPUAffinity.initial")
    final = parse_numbers(document.get("final", ""), _MAX_CPUS, "execCPUAffinity.final")
    return initial, final


def _parse_memory_policy(document: MemoryPolicy | None) -> tuple[int, list[int]] | None:
    if not document:
        return None
    mode = document.get("mode", "")
    if mode not in scheduling.MEMORY_MODES:
        raise InvalidArgumentError(f"invalid memory policy mode: {mode!r:.64}")
    nodes = parse_numbers(document.get("nodes", ""), scheduling.MAX_NODES, "memoryPolicy.nodes")
    if nodes and mode in _NODELESS:
        raise InvalidArgumentError(f"memory policy mode {mode} takes no nodes")
    flags = _bits(document.get("flags", ()), scheduling.MEMORY_FLAGS, "memory policy flag")
    return scheduling.MEMORY_MODES[mode] | flags, nodes


def _bits(names: Sequence[str], known: Mapping[str, int], what: str) -> int:
    value = 0
    for name in names:
        if name not in known:
            raise InvalidArgumentError(f"unknown {what}: {name!r:.64}")
        value |= known[name]
    return value


def _set_cpus(numbers: Sequence[int]) -> None:
    try:
        os.sched_setaffinity(0, numbers)
    except OSError as error:
        raise _failure("set CPU affinity", error) from None


def _failure(what: str, error: OSError) -> LaunchError:
    reason = os.strerror(error.errno or 0).lower()
    return LaunchError(f"{what}: {reason}", errno=error.errno or 0, step=what)
