"""``cais top``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.cli.options import command
from cais.cli.table import format_table
from cais.client.client import quote

if TYPE_CHECKING:
    from cais.cli.session import Session


@command("top", "CONTAINER [ps OPTIONS]", minimum=1, interspersed=False)
def top(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Display the running processes of a container."""
    container, *options = arguments
    query = {"ps_args": " ".join(options) or None}
    answer = session.client.get(f"/containers/{quote(container)}/top", query).json()
    for line in format_table([answer["Titles"], *answer["Processes"]]):
        print(line)
