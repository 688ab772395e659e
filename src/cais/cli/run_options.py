"""The flags of ``run`` and ``create``: one table, Docker's names and meanings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT, MANY, SWITCH, NUMBER = "text", "many", "switch", "number"

# (kind, names, help); the last name gives the Python name.
_CREATE = (
    (MANY, "-a --attach", "Attach to STDIN, STDOUT or STDERR"),
    (MANY, "--add-host", "Add a custom host-to-IP mapping (host:ip)"),
    (MANY, "--annotation", "Add an annotation for the OCI runtime"),
    (NUMBER, "--blkio-weight", "Block IO weight, between 10 and 1000, or 0"),
    (MANY, "--cap-add", "Add Linux capabilities"),
    (MANY, "--cap-drop", "Drop Linux capabilities"),
    (TEXT, "--cgroup-parent", "Optional parent cgroup for the container"),
    (TEXT, "--cgroupns", "Cgroup namespace to use (host|private)"),
    (TEXT, "--cidfile", "Write the container ID to the file"),
    (NUMBER, "--cpu-period", "Limit CPU CFS period, in microseconds"),
    (NUMBER, "--cpu-quota", "Limit CPU CFS quota, in microseconds"),
    (NUMBER, "-c --cpu-shares", "CPU shares (relative weight)"),
    (TEXT, "--cpus", "Number of CPUs"),
    (TEXT, "--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    (TEXT, "--cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    (MANY, "--device", "Add a host device to the container"),
    (MANY, "--device-cgroup-rule", "Add a rule to the cgroup allowed devices list"),
    (MANY, "--dns", "Set custom DNS servers"),
    (MANY, "--dns-option", "Set DNS options"),
    (MANY, "--dns-search", "Set custom DNS search domains"),
    (TEXT, "--domainname", "Container NIS domain name"),
    (TEXT, "--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    (MANY, "-e --env", "Set environment variables"),
    (MANY, "--env-file", "Read in a file of environment variables"),
    (MANY, "--expose", "Expose a port or a range of ports"),
    (MANY, "--group-add", "Add additional groups to join"),
    (TEXT, "--health-cmd", "Command to run to check health"),
    (TEXT, "--health-interval", "Time between running the check"),
    (NUMBER, "--health-retries", "Consecutive failures needed to report unhealthy"),
    (TEXT, "--health-start-period", "Start period before counting retries"),
    (TEXT, "--health-timeout", "Maximum time to allow one check to run"),
    (TEXT, "-h --hostname", "Container host name"),
    (SWITCH, "--init", "Run an init inside the container that reaps processes"),
    (SWITCH, "-i --interactive", "Keep STDIN open even if not attached"),
    (TEXT, "--ip", "IPv4 address"),
    (TEXT, "--ipc", "IPC mode to use"),
    (MANY, "-l --label", "Set meta data on a container"),
    (MANY, "--label-file", "Read in a line delimited file of labels"),
    (TEXT, "--log-driver", "Logging driver for the container"),
    (MANY, "--log-opt", "Log driver options"),
    (TEXT, "--mac-address", "Container MAC address"),
    (TEXT, "-m --memory", "Memory limit"),
    (TEXT, "--memory-reservation", "Memory soft limit"),
    (TEXT, "--memory-swap", "Memory plus swap; '-1' to enable unlimited swap"),
    (NUMBER, "--memory-swappiness", "Tune container memory swappiness (0 to 100)"),
    (MANY, "--mount", "Attach a filesystem mount to the container"),
    (TEXT, "--name", "Assign a name to the container"),
    (TEXT, "--network --net", "Connect the container to a network"),
    (MANY, "--network-alias", "Add a network-scoped alias for the container"),
    (SWITCH, "--no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    (SWITCH, "--oom-kill-disable", "Disable the OOM killer"),
    (NUMBER, "--oom-score-adj", "Tune the host's OOM preferences (-1000 to 1000)"),
    (TEXT, "--pid", "PID namespace to use"),
    (NUMBER, "--pids-limit", "Tune the container's pids limit (-1 for unlimited)"),
    (TEXT, "--platform", "Set platform if the server is multi-platform capable"),
    (SWITCH, "--privileged", "Give extended privileges to this container"),
    (MANY, "-p --publish", "Publish a container's ports to the host"),
    (SWITCH, "-P --publish-all", "Publish all exposed ports to random ports"),
    (TEXT, "--pull", "Pull image before running (always|missing|never)"),
    (SWITCH, "-q --quiet", "Suppress the pull output"),
    (SWITCH, "--read-only", "Mount the container's root filesystem as read only"),
    (TEXT, "--restart", "Restart policy to apply when a container exits"),
    (SWITCH, "--rm", "Remove the container when it exits"),
    (TEXT, "--runtime", "Runtime to use for this container"),
    (MANY, "--security-opt", "Security options"),
    (TEXT, "--shm-size", "Size of /dev/shm"),
    (TEXT, "--stop-signal", "Signal to stop the container"),
    (NUMBER, "--stop-timeout", "Timeout (in seconds) to stop a container"),
    (MANY, "--storage-opt", "Storage driver options for the container"),
    (MANY, "--sysctl", "Sysctl options"),
    (MANY, "--tmpfs", "Mount a tmpfs directory"),
    (SWITCH, "-t --tty", "Allocate a pseudo-TTY"),
    (MANY, "--ulimit", "Ulimit options"),
    (TEXT, "-u --user", "Username or UID (format: <name|uid>[:<group|gid>])"),
    (TEXT, "--userns", "User namespace to use"),
    (TEXT, "--uts", "UTS namespace to use"),
    (MANY, "-v --volume", "Bind mount a volume"),
    (TEXT, "--volume-driver", "Optional volume driver for the container"),
    (MANY, "--volumes-from", "Mount volumes from the specified container(s)"),
    (TEXT, "-w --workdir", "Working directory inside the container"),
)
_RUN = (
    (SWITCH, "-d --detach", "Run container in background and print container ID"),
    (TEXT, "--detach-keys", "Override the key sequence for detaching a container"),
)


def create_options(function: Callable[..., object]) -> Callable[..., object]:
    """Decorate a command with the flags of ``create``."""
    return _decorate(function, _CREATE)


def run_options(function: Callable[..., object]) -> Callable[..., object]:
    """Decorate a command with the flags of ``run``."""
    decorated = _decorate(function, (*_RUN, *_CREATE))
    help_text = "Proxy received signals to the process"
    return click.option("--sig-proxy/--no-sig-proxy", default=True, help=help_text)(decorated)


def _decorate(
    function: Callable[..., object], table: tuple[tuple[str, str, str], ...]
) -> Callable[..., object]:
    for kind, names, help_text in reversed(table):
        function = click.option(*names.split(), help=help_text, **_attributes(kind))(function)
    return function


def _attributes(kind: str) -> dict[str, Any]:
    if kind == MANY:
        return {"multiple": True}
    if kind == SWITCH:
        return {"is_flag": True}
    return {"type": int} if kind == NUMBER else {}
