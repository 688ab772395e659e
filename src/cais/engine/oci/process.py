"""The process: command, environment, user, directory, terminal, privileges.

Spec: OCI runtime-spec 1.2, config.md "Process"; Docker's environment: PATH, HOSTNAME, and TERM
with a terminal, each of which the configuration can replace or (named without "=") take away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.oci import capabilities, resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cais.engine.oci.host import Host
    from cais.engine.oci.security import SecurityOptions
    from cais.spec.container import ContainerConfig, HostConfig, Ulimit

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Document = dict[str, Any]


def build_process(
    config: ContainerConfig,
    host_config: HostConfig,
    options: SecurityOptions,
    host: Host,
    default_ulimits: Sequence[Ulimit] = (),
) -> Document:
    """Return ``process``; the user stands as root until the child has read the image's files."""
    granted = capabilities.granted(
        host_config.cap_add or (),
        host_config.cap_drop or (),
        host,
        privileged=host_config.privileged,
    )
    process: Document = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": [*(config.entrypoint or ()), *(config.cmd or ())],
        "env": build_environment(config),
        "cwd": config.working_dir or "/",
        "capabilities": capabilities.document(granted),
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj,
    }
    if limits := resources.rlimits(_merge_ulimits(default_ulimits, host_config.ulimits)):
        process["rlimits"] = limits
    if config.tty and host_config.console_size[0] and host_config.console_size[1]:
        height, width = host_config.console_size
        process["consoleSize"] = {"height": height, "width": width}
    return process


def build_environment(config: ContainerConfig) -> list[str]:
    """Return the environment; HOME is the child's to set, from the image's passwd file."""
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={config.hostname}"]
    if config.tty:
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


def _merge_ulimits(defaults: Sequence[Ulimit], asked: Sequence[Ulimit] | None) -> list[Ulimit]:
    merged = {limit.name: limit for limit in defaults}
    merged |= {limit.name: limit for limit in asked or ()}
    return list(merged.values())
