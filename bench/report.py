"""The rows as lines on a terminal and as ``docs/benchmarks.md``."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench.measure import Row, Sample

INTRODUCTION = """# Benchmarks

Written by `make bench`; every number is of one run on one machine, Cais and its peer in turns
(A B A B ...). A ratio is our median over the peer's; the spread is the 10th to the 90th percentile.
`processor` is user and system time of an engine's processes and its client; the registry, Debian's
on loopback, does not count.

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


def markdown(rows: list[Row]) -> str:
    """Return the whole page."""
    head = "| what | Cais | beside | it | ratio | budget |\n|---|---|---|---|---|---|\n"
    lines = [
        f"| {row.name} | {_value(row.ours, row.unit)} "
        f"| {row.peer_name} | {_value(row.peer, row.unit)} | {_number(row.ratio)} "
        f"| {_number(row.budget)} |"
        for row in rows
    ]
    return f"{INTRODUCTION}{machine()}\n\n{head}" + "\n".join(lines) + "\n"


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
