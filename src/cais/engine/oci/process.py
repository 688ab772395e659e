"""The process: command, environment, user, directory, terminal, privileges.

Spec: OCI runtime-spec 1.2, config.md "Process"; Docker's environment: PATH, HOSTNAME, and TERM
with a terminal, each of which the configuration can replace or (named without "=") take away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cais.engine.oci import capabilities, resources
from cais.engine.oci.security import apparmor_profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cais.engine.oci.host import Host
    from cais.engine.oci.security import SecurityOptions
    from cais.spec.container import ContainerConfig, HostConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Document = dict[str, Any]


class Program(NamedTuple):
    """What an exec may have otherwise than the container."""

    args: Sequence[str]
    environment: list[str]
    working_directory: str
    tty: bool
    console_size: tuple[int, int] | None
    """Rows and columns; None or a zero: the terminal's default."""

    privileged: bool


def own_program(config: ContainerConfig, host_config: HostConfig) -> Program:
    """Return what the container itself runs."""
    return Program(
        args=[*(config.entrypoint or ()), *(config.cmd or ())],
        environment=build_environment(config, tty=config.tty),
        working_directory=config.working_dir,
        tty=config.tty,
        console_size=host_config.console_size,
        privileged=host_config.privileged,
    )


def build_process(
    program: Program, host_config: HostConfig, options: SecurityOptions, host: Host
) -> Document:
    """Return ``process``; the user stands as root until the child has read the image's files.

    The AppArmor profile is the container's also for a privileged exec, as with Docker.
    """
    granted = capabilities.granted(
        host_config.cap_add or (), host_config.cap_drop or (), host, privileged=program.privileged
    )
    process: Document = {
        "terminal": program.tty,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": list(program.args),
        "env": program.environment,
        "cwd": program.working_directory or "/",
        "capabilities": capabilities.document(granted),
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj,
    }
    if limits := resources.rlimits(host_config.ulimits):
        process["rlimits"] = limits
    if profile := apparmor_profile(options, host, privileged=host_config.privileged):
        process["apparmorProfile"] = profile
    if program.tty and program.console_size and all(program.console_size):
        height, width = program.console_size
        process["consoleSize"] = {"height": height, "width": width}
    return process


def build_environment(config: ContainerConfig, *, tty: bool) -> list[str]:
    """Return the environment; HOME is the child's to set, from the image's passwd file."""
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={config.hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    return replace_or_append(defaults, config.env or ())


def replace_or_append(defaults: Iterable[str], overrides: Iterable[str]) -> list[str]:
    """Let ``overrides`` take the place of defaults of the same name; ``NAME`` alone takes it away.

    Every name appears once, where it first stood, with the value it last had.
    """
    merged: dict[str, str | None] = {}
    for entry in (*defaults, *overrides):
        name, equals, _ = entry.partition("=")
        merged[name] = entry if equals else None
    return [entry for entry in merged.values() if entry is not None]
