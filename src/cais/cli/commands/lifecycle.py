"""The commands that do one thing to each container they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cais.cli.each import for_each
from cais.cli.options import command
from cais.client.client import quote

if TYPE_CHECKING:
    from cais.cli.session import Session

_SOME = "CONTAINER [CONTAINER...]"


def _post_each(session: Session, names: tuple[str, ...], verb: str, **query: object) -> int:
    client = session.client
    return for_each(
        names, lambda name: client.post(f"/containers/{quote(name)}/{verb}", query).close()
    )


@command("stop", _SOME, minimum=1)
@click.option("-s", "--signal", help="Signal to send to the container")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds to wait before killing")
def stop(
    session: Session, /, arguments: tuple[str, ...], signal: str | None, timeout: int | None
) -> int:
    """Stop one or more running containers."""
    return _post_each(session, arguments, "stop", signal=signal, t=timeout)


@command("restart", _SOME, minimum=1)
@click.option("-s", "--signal", help="Signal to send to the container")
@click.option("-t", "--timeout", "--time", type=int, help="Seconds to wait before killing")
def restart(
    session: Session, /, arguments: tuple[str, ...], signal: str | None, timeout: int | None
) -> int:
    """Restart one or more containers."""
    return _post_each(session, arguments, "restart", signal=signal, t=timeout)


@command("kill", _SOME, minimum=1)
@click.option("-s", "--signal", help="Signal to send to the container")
def kill(session: Session, /, arguments: tuple[str, ...], signal: str | None) -> int:
    """Kill one or more running containers."""
    return _post_each(session, arguments, "kill", signal=signal)


@command("pause", _SOME, minimum=1)
def pause(session: Session, /, arguments: tuple[str, ...]) -> int:
    """Pause all processes within one or more containers."""
    return _post_each(session, arguments, "pause")


@command("unpause", _SOME, minimum=1)
def unpause(session: Session, /, arguments: tuple[str, ...]) -> int:
    """Unpause all processes within one or more containers."""
    return _post_each(session, arguments, "unpause")


@command("rm", _SOME, minimum=1)
@click.option("-f", "--force", is_flag=True, help="Force the removal of a running container")
@click.option("-v", "--volumes", is_flag=True, help="Remove its anonymous volumes")
def rm(session: Session, /, arguments: tuple[str, ...], *, force: bool, volumes: bool) -> int:
    """Remove one or more containers."""
    client = session.client
    query = {"force": force, "v": volumes}
    return for_each(
        arguments, lambda name: client.delete(f"/containers/{quote(name)}", query).close()
    )


@command("wait", _SOME, minimum=1)
def wait(session: Session, /, arguments: tuple[str, ...]) -> int:
    """Block until one or more containers stop, then print their exit codes."""
    client = session.client

    def status_of(name: str) -> object:
        return client.post(f"/containers/{quote(name)}/wait").json()["StatusCode"]

    return for_each(arguments, status_of)


@command("rename", "CONTAINER NEW_NAME", minimum=2, maximum=2)
def rename(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Rename a container."""
    old, new = arguments
    session.client.post(f"/containers/{quote(old)}/rename", {"name": new}).close()
