"""``cais exec``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cais.cli.container_streams import pump, require_terminal
from cais.cli.creation import read_environment
from cais.cli.failures import NOT_RUN, describe, exit_code_of
from cais.cli.options import command
from cais.cli.streams import Detached
from cais.client.client import quote
from cais.errors import CaisError

if TYPE_CHECKING:
    from cais.cli.session import Session
    from cais.client import Client

Options = dict[str, Any]


class ExecError(CaisError):
    """The program could not be started; ``exit_code`` says why."""

    def __init__(self, cause: CaisError) -> None:
        super().__init__(describe(cause))
        code = exit_code_of(str(cause))
        self.exit_code = code if code != NOT_RUN else 1


@command("exec", "CONTAINER COMMAND [ARG...]", minimum=2, interspersed=False)
@click.option("-d", "--detach", is_flag=True, help="Run the command in the background")
@click.option("--detach-keys", help="Override the key sequence for detaching")
@click.option("-e", "--env", multiple=True, help="Set environment variables")
@click.option("--env-file", multiple=True, help="Read in a file of environment variables")
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY")
@click.option("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])")
@click.option("-w", "--workdir", help="Working directory inside the container")
def exec_(session: Session, /, arguments: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401
    """Execute a command in a running container."""
    container, *words = arguments
    if options["tty"] and options["interactive"]:
        require_terminal()
    client = session.client
    try:
        identifier = _create(client, container, words, options)
        if options["detach"]:
            client.post(f"/exec/{identifier}/start", None, {"Detach": True}).close()
            return 0
        _run_attached(client, identifier, options)
    except Detached:
        raise
    except CaisError as error:
        raise ExecError(error) from error
    return int(client.get(f"/exec/{identifier}/json").json()["ExitCode"] or 0)


def _create(client: Client, container: str, words: list[str], options: Options) -> str:
    attached = not options["detach"]
    body = {
        "AttachStdin": attached and options["interactive"],
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": options["tty"],
        "Cmd": words,
        "Env": read_environment(options["env"], options["env_file"], os.environ),
        "User": options["user"] or "",
        "WorkingDir": options["workdir"] or "",
        "Privileged": options["privileged"],
        "DetachKeys": options["detach_keys"] or "",
    }
    return str(client.post(f"/containers/{quote(container)}/exec", None, body).json()["Id"])


def _run_attached(client: Client, identifier: str, options: Options) -> None:
    body = {"Detach": False, "Tty": options["tty"]}
    with client.hijack(f"/exec/{identifier}/start", None, body) as stream:
        pump(
            client,
            stream,
            f"/exec/{identifier}",
            terminal=options["tty"],
            stdin=options["interactive"],
            detach_keys=options["detach_keys"],
        )
