"""``cais system df``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cais.cli.commands.images import rows_of
from cais.cli.commands.ps import row_of
from cais.cli.options import command
from cais.cli.table import format_rows
from cais.cli.template import Template
from cais.spec.units import human_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cais.cli.session import Session

    Document = dict[str, Any]

SUMMARY = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
IMAGES = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
CONTAINERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Names": "NAMES",
}
VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
BUILD_CACHE = {
    "ID": "CACHE ID",
    "CacheType": "CACHE TYPE",
    "Size": "SIZE",
    "CreatedSince": "CREATED",
    "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE",
    "Shared": "SHARED",
}
_ACTIVE_STATES = frozenset(("running", "paused", "restarting"))


@command("df", "", maximum=0)
@click.option("--format", "chosen", help="Format output: table, json or a Go template")
@click.option("-v", "--verbose", is_flag=True, help="Show detailed information on space usage")
def df(session: Session, /, chosen: str | None, *, verbose: bool) -> None:
    """Show disk usage."""
    report = session.client.get("/system/df").json()
    if not verbose:
        for line in format_rows(_summary(report), SUMMARY, chosen):
            print(line)
    elif chosen is None:
        _print_tables(_details(report))
    else:
        details = _details(report)
        print(json.dumps(details) if chosen == "json" else Template(chosen).render(details))


def _summary(report: Document) -> list[dict[str, str]]:
    images = report["Images"] or []
    in_use = [one for one in images if one["Containers"]]
    used_bytes = sum(one["Size"] - one["SharedSize"] for one in in_use)
    total = report["LayersSize"]
    containers = [
        (one["SizeRw"], one["State"] in _ACTIVE_STATES) for one in report["Containers"] or ()
    ]
    volumes = [
        (one["UsageData"]["Size"], one["UsageData"]["RefCount"] > 0)
        for one in report["Volumes"] or ()
    ]
    return [
        _line("Images", len(images), len(in_use), total, total - used_bytes),
        _line_of("Containers", containers),
        _line_of("Local Volumes", volumes),
        _line_of("Build Cache", []),
    ]


def _line_of(title: str, found: Sequence[tuple[int, bool]]) -> dict[str, str]:
    """Make a line of sizes, each with whether it is in use."""
    active = [size for size, is_active in found if is_active]
    total = sum(size for size, _ in found)
    return _line(title, len(found), len(active), total, total - sum(active))


def _line(title: str, count: int, active: int, size: int, free: int) -> dict[str, str]:
    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Active": str(active),
        "Reclaimable": human_size(free) + share,
        "Size": human_size(size),
        "TotalCount": str(count),
        "Type": title,
    }


def _details(report: Document) -> dict[str, list[dict[str, str]]]:
    return {
        "Images": [row for one in report["Images"] or () for row in _image_rows(one)],
        "Containers": [_container_row(one) for one in report["Containers"] or ()],
        "Volumes": [_volume_row(one) for one in report["Volumes"] or ()],
        "BuildCache": [],
    }


def _print_tables(details: Mapping[str, Sequence[dict[str, str]]]) -> None:
    for title, name, columns in (
        ("Images space usage:", "Images", IMAGES),
        ("Containers space usage:", "Containers", CONTAINERS),
        ("Local Volumes space usage:", "Volumes", VOLUMES),
        ("Build cache usage: 0B", "BuildCache", BUILD_CACHE),
    ):
        print(title, "", *format_rows(details[name], columns, None), sep="\n")
        if name != "BuildCache":
            print()


def _image_rows(image: Document) -> Iterable[dict[str, str]]:
    for row in rows_of(image, truncate=True):
        yield {
            **row,
            "SharedSize": human_size(image["SharedSize"]),
            "UniqueSize": human_size(image["Size"] - image["SharedSize"]),
        }


def _container_row(container: Document) -> dict[str, str]:
    volumes = sum(mount.get("Driver") == "local" for mount in container["Mounts"] or ())
    return {
        **row_of(container, truncate=True),
        "LocalVolumes": str(volumes),
        "Size": human_size(container["SizeRw"], 3),
    }


def _volume_row(volume: Document) -> dict[str, str]:
    return {
        "Name": volume["Name"],
        "Links": str(volume["UsageData"]["RefCount"]),
        "Size": human_size(volume["UsageData"]["Size"]),
        "Driver": volume["Driver"],
        "Mountpoint": volume["Mountpoint"],
    }
