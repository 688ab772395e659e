"""``cais version`` and ``cais info``."""

from __future__ import annotations

import json
import platform
import sys
from typing import TYPE_CHECKING, Any

import click

from cais.cli.options import command
from cais.cli.template import Template
from cais.errors import UnavailableError
from cais.spec.version import VERSION

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("version", "", maximum=0)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
def version(session: Session, /, chosen: str | None) -> int:
    """Show the version of the command line and of the daemon."""
    client: dict[str, Any] = {
        "Version": VERSION,
        "Python": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine(),
    }
    server, failure = None, None
    try:
        server = session.client.get("/version").json()
        client["ApiVersion"] = session.client.version
    except UnavailableError as error:
        failure = error
    document = {"Client": client, "Server": server}
    if chosen is not None:
        print(json.dumps(document) if chosen == "json" else Template(chosen).render(document))
    else:
        for title, part in document.items():
            if part:
                _print_part(title, part)
    if failure:
        print(f"cais: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _print_part(title: str, part: dict[str, Any]) -> None:
    print(title)
    for name in ("Version", "ApiVersion", "MinAPIVersion", "Python", "KernelVersion"):
        if name in part:
            print(f" {_spaced(name) + ':':<22}{part[name]}")
    print(f" {'OS/Arch:':<22}{part.get('Os')}/{part.get('Arch')}")
    for component in part.get("Components") or ():
        print(f" {component['Name'] + ':':<22}{component['Version']}")


def _spaced(name: str) -> str:
    return {"ApiVersion": "API version", "MinAPIVersion": "Minimum API version"}.get(
        name, name.replace("Version", " version").strip().capitalize()
    )


INFO_LINES = {
    "Containers": "Containers",
    "ContainersRunning": " Running",
    "ContainersPaused": " Paused",
    "ContainersStopped": " Stopped",
    "Images": "Images",
    "ServerVersion": "Server Version",
    "Driver": "Storage Driver",
    "LoggingDriver": "Logging Driver",
    "CgroupDriver": "Cgroup Driver",
    "CgroupVersion": "Cgroup Version",
    "DefaultRuntime": "Default Runtime",
    "KernelVersion": "Kernel Version",
    "OperatingSystem": "Operating System",
    "OSType": "OSType",
    "Architecture": "Architecture",
    "NCPU": "CPUs",
    "MemTotal": "Total Memory",
    "Name": "Name",
    "ID": "ID",
    "DockerRootDir": "Data Root",
    "Debug": "Debug Mode",
}


@command("info", "", maximum=0)
@click.option("-f", "--format", "chosen", help="Format output: json or a Go template")
def info(session: Session, /, chosen: str | None) -> None:
    """Display system-wide information."""
    document = session.client.get("/info").json()
    if chosen is not None:
        print(json.dumps(document) if chosen == "json" else Template(chosen).render(document))
        return
    for field, title in INFO_LINES.items():
        if field in document:
            print(f"{title}: {_value(field, document[field])}")
    for option in document.get("SecurityOptions") or ():
        print(f"Security Option: {option}")
    for warning in document.get("Warnings") or ():
        print(f"WARNING: {warning}", file=sys.stderr)


def _value(field: str, value: object) -> str:
    if field == "MemTotal" and isinstance(value, int):
        return f"{value / 1024**3:.4g}GiB"
    return str(value).lower() if isinstance(value, bool) else str(value)
