"""``cais login`` and ``cais logout``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from cais.cli.docker_config import HUB, DockerConfig, server_of
from cais.cli.options import command
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.cli.session import Session

_INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""


@command("login", "[SERVER]", maximum=1)
@click.option("-p", "--password", help="Password or Personal Access Token (PAT)")
@click.option("--password-stdin", is_flag=True, help="Take the Password from stdin")
@click.option("-u", "--username", help="Username")
def login(
    session: Session,
    /,
    arguments: tuple[str, ...],
    username: str | None,
    password: str | None,
    *,
    password_stdin: bool,
) -> None:
    """Authenticate to a registry."""
    server = server_of(arguments[0] if arguments else HUB)
    config = DockerConfig(os.environ)
    if password_stdin:
        password = _read_password(username, password)
    elif password is not None:
        print(_INSECURE, file=sys.stderr)
    username = username or config.get(server).get("username") or _ask("Username")
    password = password or _ask("Password", hide_input=True)
    auth = {"username": username, "password": password, "serveraddress": server}
    answer = session.client.post("/auth", None, auth).json()
    if token := answer.get("IdentityToken"):
        auth = {"username": username, "identitytoken": token, "serveraddress": server}
    config.store(server, auth)
    if config.helper(server) is None:
        print(_UNENCRYPTED.format(config.path), file=sys.stderr)
    print(answer.get("Status") or "Login Succeeded")


@command("logout", "[SERVER]", maximum=1)
def logout(session: Session, /, arguments: tuple[str, ...]) -> None:
    """Log out from a registry."""
    del session
    server = server_of(arguments[0] if arguments else HUB)
    print(f"Removing login credentials for {server}")
    DockerConfig(os.environ).erase(server)


def _read_password(username: str | None, password: str | None) -> str:
    if password is not None:
        raise InvalidArgumentError(
            "conflicting options: cannot specify both --password and --password-stdin"
        )
    if not username:
        raise InvalidArgumentError("the --password-stdin option requires --username to be set")
    return sys.stdin.read().rstrip("\r\n")


def _ask(what: str, *, hide_input: bool = False) -> str:
    if not sys.stdin.isatty():
        raise InvalidArgumentError(
            "Error: Cannot perform an interactive login from a non TTY device"
        )
    text: str = click.prompt(what, hide_input=hide_input)
    return text
