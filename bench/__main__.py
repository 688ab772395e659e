"""``python -m bench [--quick] [--only WORD] [--output FILE]``: measure, print, write the page."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from bench import image_archives, image_rows
from bench.report import machine, markdown, print_row
from bench.rows import measure_all

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MARK = "CAIS_BENCH_NAMESPACES"
PEERS = ("docker", "dockerd", "docker-registry", "mmdebstrap", "podman", "runc", "crun")
"""Programs without which rows are left out."""


def main() -> int:
    """Run the rows; exit 1 if one is over its budget (never in --quick)."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="few repetitions, write nothing")
    parser.add_argument(
        "--only", default="", help="only rows with this in their name; the page keeps its others"
    )
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write")
    options = parser.parse_args()
    if missing := [name for name in PEERS if shutil.which(name) is None]:
        print(f"not installed: {', '.join(missing)}; the rows beside them are left out")
        if options.output == PAGE and not options.quick:
            print(f"so {PAGE.name} is not written: name another file with --output")
            return 2
    if os.environ.get(MARK) is None:
        if image_rows.wanted(options.only):
            image_archives.debian()  # needs the network, which the rest has none of
        enter_namespaces()
    print(machine())
    rows = []
    for row in measure_all(quick=options.quick, only=options.only):
        print_row(row)
        rows.append(row)
    if not options.quick:
        before = options.output.read_text() if options.only and options.output.exists() else ""
        options.output.write_text(markdown(rows, before))
        print(f"written: {options.output}")
    return int(not options.quick and any(row.is_over_budget for row in rows))


def enter_namespaces() -> None:
    """Start again where no mount, link or packet reaches the machine."""
    unshare = ("unshare", "--net", "--mount", "--propagation", "private")
    os.environ[MARK] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, "-m", "bench", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
