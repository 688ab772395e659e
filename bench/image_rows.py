"""Rows of load, save, push and pull: the same images, each engine with registries of its own."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench.image_archives import IMAGES
from bench.image_engines import VERBS, Cost, ImageEngine, Podman
from bench.measure import Row, Sample
from bench.subjects import Subject

BUDGET = 0.8

Costs = dict[str, dict[str, list[Cost]]]
"""By verb and engine."""


def wanted(only: str) -> list[str]:
    """Return the images of which a row is asked for."""
    return [what for what in IMAGES if any(only in _name(verb, what) for verb in VERBS)]


def measure(ours: Subject, peer: Subject | None, times: int, only: str) -> Iterator[Row]:
    """Yield the rows; none where there is no registry or no Debian image."""
    images = wanted(only)
    if not images or not shutil.which("docker-registry"):
        return
    with ExitStack() as stack:
        engines = [ImageEngine("Cais", ours)]
        engines += [ImageEngine("dockerd", peer)] if peer else []
        engines += [Podman("podman", ours)] if shutil.which("podman") else []
        for engine in engines:
            stack.enter_context(engine)
        for what in images:
            archive = IMAGES[what]()
            if archive is None:
                continue
            for engine in engines:
                engine.offer(archive)
            costs = _in_turns(engines, times)
            for verb in VERBS:
                if only in (name := _name(verb, what)):
                    yield from _rows(name, costs[verb])


def _name(verb: str, what: str) -> str:
    return f"docker {verb}, {what}"


def _in_turns(engines: Sequence[ImageEngine], times: int) -> Costs:
    """Let all engines do a round, again and again; the first time is not counted."""
    costs: Costs = {verb: {engine.name: [] for engine in engines} for verb in VERBS}
    for turn in range(times + 1):
        for verb in VERBS:
            for engine in engines:
                cost: Cost = getattr(engine, verb)()
                if turn:
                    costs[verb][engine.name].append(cost)
    return costs


def _rows(name: str, costs: dict[str, list[Cost]]) -> Iterator[Row]:
    ours = costs.pop("Cais")
    for peer_name in costs or {"dockerd": []}:
        peer = costs.get(peer_name)
        budget = BUDGET if peer_name == "dockerd" else None
        yield Row(name, "ms", peer_name, _wall(ours), _wall(peer) if peer else None, budget)
        if peer:
            sample = _processor(peer)
            yield Row(f"{name}: processor", "ms", peer_name, _processor(ours), sample)


def _wall(costs: list[Cost]) -> Sample:
    return Sample([cost.wall_ms for cost in costs])


def _processor(costs: list[Cost]) -> Sample:
    return Sample([cost.processor_ms for cost in costs])
