"""``cais update``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cais.cli.creation import limits, restart_policy
from cais.cli.each import for_each
from cais.cli.options import command
from cais.client.client import quote

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("update", "CONTAINER [CONTAINER...]", minimum=1)
@click.option("--blkio-weight", type=int, help="Block IO weight, between 10 and 1000, or 0")
@click.option("--cpu-period", type=int, help="Limit CPU CFS period, in microseconds")
@click.option("--cpu-quota", type=int, help="Limit CPU CFS quota, in microseconds")
@click.option("-c", "--cpu-shares", type=int, help="CPU shares (relative weight)")
@click.option("--cpus", help="Number of CPUs")
@click.option("--cpuset-cpus", help="CPUs in which to allow execution (0-3, 0,1)")
@click.option("--cpuset-mems", help="MEMs in which to allow execution (0-3, 0,1)")
@click.option("-m", "--memory", help="Memory limit")
@click.option("--memory-reservation", help="Memory soft limit")
@click.option("--memory-swap", help="Memory plus swap; -1 to enable unlimited swap")
@click.option("--pids-limit", type=int, help="Tune the container's pids limit")
@click.option("--restart", help="Restart policy to apply when a container exits")
def update(session: Session, /, arguments: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401
    """Update the configuration of one or more containers."""
    client = session.client
    given = limits({**options, "memory_swappiness": None, "shm_size": None})
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if options["restart"]:
        body["RestartPolicy"] = restart_policy(options["restart"])

    def change(name: str) -> None:
        answer = client.post(f"/containers/{quote(name)}/update", None, body).json()
        for warning in answer.get("Warnings") or ():
            print(warning, file=sys.stderr)

    return for_each(arguments, change)
