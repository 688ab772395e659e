"""The tree of commands, each imported when it is called, and what failures print and exit with."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit, NoArgsIsHelpError

from cais import errors
from cais.cli.failures import describe
from cais.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACE = "cais.cli.commands."

# Command name to "module" or "module:attribute" under cais.cli.commands.
CONTAINER = {
    "attach": "attach",
    "commit": "commit",
    "cp": "cp",
    "create": "run:create",
    "diff": "commit:diff",
    "exec": "exec:exec_",
    "export": "commit:export",
    "inspect": "inspect:inspect_container",
    "kill": "lifecycle:kill",
    "logs": "logs",
    "ls": "ps",
    "pause": "lifecycle:pause",
    "prune": "prune:prune_containers",
    "rename": "lifecycle:rename",
    "restart": "lifecycle:restart",
    "rm": "lifecycle:rm",
    "run": "run",
    "start": "start",
    "stop": "lifecycle:stop",
    "top": "top",
    "unpause": "lifecycle:unpause",
    "update": "update",
    "wait": "lifecycle:wait",
}
IMAGE = {
    "bootstrap": "bootstrap",
    "history": "history",
    "import": "archives:import_",
    "inspect": "inspect:inspect_image",
    "load": "archives:load",
    "ls": "images:images",
    "prune": "prune:prune_images",
    "pull": "transfers:pull",
    "push": "transfers:push",
    "rm": "images:rmi",
    "save": "archives:save",
    "tag": "images:tag",
}
SYSTEM = {
    "check": "check",
    "df": "disk_use:df",
    "events": "events",
    "info": "system:info",
    "prune": "prune:prune_system",
}
VOLUME = {
    "create": "volume:create",
    "inspect": "volume:inspect",
    "ls": "volume:ls",
    "prune": "prune:prune_volumes",
    "rm": "volume:rm",
}
NETWORK = {
    "inspect": "network:inspect",
    "ls": "network:ls",
    "prune": "prune:prune_networks",
}
MANIFEST = {"inspect": "manifest:inspect"}
REGISTRY = {"serve": "registry:serve"}
GROUPS = {
    "container": CONTAINER,
    "image": IMAGE,
    "manifest": MANIFEST,
    "network": NETWORK,
    "registry": REGISTRY,
    "system": SYSTEM,
    "volume": VOLUME,
}
_BOTH = ("history", "import", "load", "pull", "push", "save", "tag")
_NOT_ON_TOP = {"bootstrap", "ls", "prune", "inspect"}
COMMANDS = {
    **{name: place for name, place in CONTAINER.items() if name not in _NOT_ON_TOP},
    "ps": "ps",
    "images": "images",
    "login": "login",
    "logout": "login:logout",
    "rmi": "images:rmi",
    "search": "search",
    **{name: IMAGE[name] for name in _BOTH},
    "inspect": "inspect",
    **{name: SYSTEM[name] for name in ("events", "info")},
    "version": "system:version",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def __init__(self, places: Mapping[str, str], **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, sorted."""
        return sorted(self._places) + (sorted(GROUPS) if self._places is COMMANDS else [])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command; None if there is no such name."""
        if self._places is COMMANDS and cmd_name in GROUPS:
            purpose = "Run a registry." if cmd_name == "registry" else f"Manage {cmd_name}s."
            return LazyGroup(GROUPS[cmd_name], name=cmd_name, help=purpose)
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(_PLACE + module), attribute or module)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail in Docker's words."""
        if self.get_command(ctx, args[0]) is None:
            raise _no_such_command(ctx.command_path, args[0])
        return super().resolve_command(ctx, args)


class UnknownCommandError(errors.InvalidArgumentError):
    """No command has this name."""

    def __init__(self, group: str, name: str) -> None:
        super().__init__(
            f"unknown command: {group} {name}\n\nRun '{group} --help' for more information"
        )


def _no_such_command(group: str, name: str) -> errors.CaisError:
    from cais.cli.absent import AbsentCommandError, is_dockers

    kind = AbsentCommandError if is_dockers(group, name) else UnknownCommandError
    return kind(group, name)


def _root() -> LazyGroup:
    return LazyGroup(
        COMMANDS,
        name="cais",
        help="A container platform in Python: Docker's commands, an engine that starts itself.",
        context_settings={"help_option_names": ["--help"]},
        callback=_configure,
        params=[
            click.Option(["-H", "--host"], help="Daemon socket to connect to."),
            click.Option(["--data-root"], help="Where the engine keeps images and containers."),
            click.Option(["--exec-root"], help="Where the engine keeps sockets and bundles."),
            click.Option(["-v", "--version"], is_flag=True, help="Print the version."),
        ],
    )


@click.pass_context
def _configure(
    ctx: click.Context,
    *,
    host: str | None,
    data_root: str | None,
    exec_root: str | None,
    version: bool,
) -> None:
    if version:  # with other options beside it; alone, main() answers faster
        from cais.spec.version import VERSION

        print(f"cais version {VERSION}")
        ctx.exit(0)
    ctx.obj = Session(os.environ, host=host, data_root=data_root, exec_root=exec_root)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; print what fails on standard error. Return the exit status."""
    try:
        result = _root().main(list(arguments), prog_name="cais", standalone_mode=False)
    except click.UsageError as error:
        return _report_usage(error)
    except Exit as request:
        return request.exit_code
    except errors.CaisError as error:
        print(describe(error), file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except BrokenPipeError:
        # Nobody reads our output any more; a second error at the interpreter's exit helps nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, click.Abort):
        return 130
    return result if isinstance(result, int) else 0


def _report_usage(error: click.UsageError) -> int:
    """Print a usage error as Docker does: 125 for a flag, 1 for arguments."""
    path = error.ctx.command_path if error.ctx else "cais"
    text = error.format_message()
    if isinstance(error, NoArgsIsHelpError):
        print(text)
        return 0
    is_flag = isinstance(error, click.BadOptionUsage | click.NoSuchOption | click.BadParameter)
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        text = (
            f"unknown flag: {name}" if name.startswith("--") else f"unknown shorthand flag: {name}"
        )
    prefix = "" if is_flag else "cais: "
    print(f"{prefix}{text}\n\nRun '{path} --help' for more information", file=sys.stderr)
    return 125 if is_flag and not isinstance(error, click.MissingParameter) else 1
