"""The page of benchmarks: what is measured anew takes the place of what stood there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import report
from bench.measure import Row, Sample

if TYPE_CHECKING:
    import pytest


def row(name: str, peer: str, ours: float) -> Row:
    return Row(name, "ms", peer, Sample([ours, ours]), Sample([10.0, 10.0]), 0.5)


def rows_of(page: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("| ") and " ms " in line
    ]


def test_a_page_keeps_the_rows_that_were_not_measured() -> None:
    page = report.markdown([row("run", "dockerd", 1), row("run", "podman", 2), row("load", "-", 3)])
    page = report.markdown([row("run", "podman", 4), row("save", "-", 5)], page)
    assert [(line[0], line[2], line[4]) for line in rows_of(page)] == [
        ("run", "dockerd", "0.10"),
        ("run", "podman", "0.40"),
        ("load", "-", "0.30"),
        ("save", "-", "0.50"),
    ]
    assert rows_of(page)[0][5:] == ["0.50", "2"]


def test_rows_of_another_machine_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    page = report.markdown([row("run", "dockerd", 1)])
    monkeypatch.setattr(report, "machine", lambda: "a newer one")
    page = report.markdown([row("load", "dockerd", 2)], page)
    assert [line[0] for line in rows_of(page)] == ["load"]
