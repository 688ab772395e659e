"""The rows as lines on a terminal and as ``docs/benchmarks.md``."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.measure import Row, Sample

INTRODUCTION = """# Benchmarks

Written by `make bench`, or in parts by `python -m bench --only WORD`. The numbers of a row are of
one run, Cais and its peer in turns (A B A B ...), as often as `times` says. A ratio is our median
over the peer's; the spread is the 10th to the 90th percentile.
`processor` is user and system time of an engine's processes and its client; the registry, Debian's
on loopback, does not count. Each daemon has a disk of its own, ext4 on a loop device; podman shares
that of Cais.

"""


_HEAD = """| what | Cais | beside | it | ratio | budget | times |
|---|---|---|---|---|---|---|
"""


def machine() -> str:
    """Return one line about where and beside what we measure."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    versions = [
        f"Linux {platform.release()}",
        f"{os.cpu_count()} x {cpu}",
        f"Python {platform.python_version()}",
        *(_version(program) for program in ("docker", "dockerd", "runc", "crun")),
    ]
    return "; ".join(filter(None, versions))


def _version(program: str) -> str:
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        return ""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    first = said.split("\n")[0].split(",")[0].strip()
    return f"dockerd: {first}" if program == "dockerd" else first


def print_row(row: Row) -> None:
    """Print a row as soon as it is measured."""
    print(f"{row.name:<44} {_value(row.ours, row.unit):>26}   {_ratio(row)}", flush=True)


def markdown(rows: list[Row], page: str = "") -> str:
    """Return the whole page: the rows, and what the page before has of others on this machine."""
    lines = _lines_of(page) if machine() in page else {}
    lines |= {(row.name, row.peer_name): _line(row) for row in rows}
    return f"{INTRODUCTION}{machine()}\n\n{_HEAD}" + "\n".join(lines.values()) + "\n"


def _lines_of(page: str) -> dict[tuple[str, str], str]:
    """Return the rows of a page by what was measured and beside whom."""
    _, _, table = page.partition(_HEAD)
    cells = {line: [cell.strip() for cell in line.split("|")] for line in table.splitlines()}
    return {(fields[1], fields[3]): line for line, fields in cells.items()}


def _line(row: Row) -> str:
    fields = (
        row.name,
        _value(row.ours, row.unit),
        row.peer_name,
        _value(row.peer, row.unit),
        _number(row.ratio),
        _number(row.budget),
        str(len(row.ours.values)),
    )
    return f"| {' | '.join(fields)} |"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return f"({row.peer_name}: not usable here)"
    verdict = "OVER BUDGET" if row.is_over_budget else "ok"
    budget = f" (budget {row.budget:g}: {verdict})" if row.budget else ""
    return f"{row.ratio:.2f} of {row.peer_name} {_value(row.peer, row.unit)}{budget}"


def _value(sample: Sample | None, unit: str) -> str:
    if sample is None:
        return "-"
    low, high = sample.spread
    return f"{sample.median:.4g} {unit} [{low:.4g}..{high:.4g}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
