"""The rows: what is measured, beside whom, and what DESIGN budgets for it."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import image_rows, memory_rows, oci_rows
from bench.measure import Row, in_turns, milliseconds
from bench.subjects import Subject, both

NETWORKS = ("none", "bridge", "host")
BATCH = 10  # containers a measurement of many starts


def measure_all(*, quick: bool, only: str = "") -> Iterator[Row]:
    """Yield the rows as they are measured; ``quick`` repeats little and leaves out long ones."""
    times = 3 if quick else 20
    with tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name:
        with both(Path(name)) as (ours, peer):
            for function in (_run_rows, _exec_rows, _idle_rows, _cpu_rows, _many_rows):
                if not (quick and function is _many_rows):
                    yield from (row for row in function(ours, peer, times, only))
            yield from image_rows.measure(ours, peer, 1 if quick else times, only)
            if not quick:
                yield from memory_rows.measure(ours, only)
        yield from oci_rows.measure(Path(name), times, only)


Measured = Callable[[Subject], float]


def _row(
    name: str,
    unit: str,
    budget: float | None,
    measure: Measured,
    ours: Subject,
    peer: Subject | None,
    times: int,
    *,
    warm_up: int = 2,
) -> Row:
    peer_measure = (lambda: measure(peer)) if peer else None
    sample, peer_sample = in_turns(lambda: measure(ours), peer_measure, times, warm_up)
    return Row(name, unit, "dockerd", sample, peer_sample, budget)


def _run_rows(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    for network in NETWORKS:
        name = f"docker run --rm --network {network} busybox true"
        command = ("run", "--rm", "--network", network, "busybox", "true")

        def run(subject: Subject, command: tuple[str, ...] = command) -> float:
            return milliseconds(lambda: subject.docker(*command))

        if only in name:
            yield _row(name, "ms", 0.20, run, ours, peer, times)


def _exec_rows(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    name = "docker exec true"
    if only not in name:
        return
    subjects = [subject for subject in (ours, peer) if subject]
    for subject in subjects:
        subject.docker("run", "-d", "--name", "bench", "busybox", "sleep", "86400")
    yield _row(
        name,
        "ms",
        0.40,
        lambda subject: milliseconds(lambda: subject.docker("exec", "bench", "true")),
        ours,
        peer,
        times,
    )
    for subject in subjects:
        subject.docker("rm", "-f", "bench")


def _idle_rows(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    name = "daemon idle memory (PSS)"
    if only in name:
        measure: Measured = lambda subject: subject.engine_pss_kib() / 1024  # noqa: E731
        yield _row(name, "MiB", 0.6, measure, ours, peer, times)


def _cpu_rows(ours: Subject, _: Subject | None, times: int, only: str) -> Iterator[Row]:
    name = "CPU inside: a loop of additions"
    if only not in name:
        return
    script = "awk 'BEGIN { for (i = 0; i < 6000000; i++) s += i }'"
    clock = f"read a b < /proc/uptime; {script}; read c d < /proc/uptime; echo $a $c"

    def seconds(text: str) -> float:
        began, ended = map(float, text.split())
        return (ended - began) * 1000

    host = ("busybox", "sh", "-c", clock)
    sample, host_sample = in_turns(
        lambda: seconds(ours.docker("run", "--rm", "--network", "none", *host).stdout),
        lambda: seconds(ours.run_inside(list(host)).stdout),
        times,
    )
    yield Row(name, "ms", "the host", sample, host_sample, 1 / 0.98)


def _many_rows(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    started = f"start of {times * BATCH} containers, 4 at a time: every {BATCH}"
    memory = f"engine memory per idle container, at {times * BATCH} (PSS)"
    if only not in started + memory:
        return
    subjects = [subject for subject in (ours, peer) if subject]
    for subject in subjects:  # the first ones grow tables that the others use
        subject.remove(subject.run_sleepers(BATCH))
    idle = {subject: subject.engine_pss_kib() for subject in subjects}
    identifiers: dict[Subject, list[str]] = {subject: [] for subject in subjects}

    def start(subject: Subject) -> float:
        return milliseconds(lambda: identifiers[subject].extend(subject.run_sleepers(BATCH)))

    def weigh(subject: Subject) -> float:
        return (subject.engine_pss_kib() - idle[subject]) / len(identifiers[subject])

    yield _row(started, "ms", 0.20, start, ours, peer, times, warm_up=0)
    yield _row(memory, "KiB", 0.05, weigh, ours, peer, times)
    for subject in subjects:
        subject.remove(identifiers[subject])
