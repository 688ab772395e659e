"""The process of ``docker exec``: like the container's own, with what the request changes.

Spec: docker-engine-api v1.51, /containers/{id}/exec; architecture.md 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.oci import capabilities, resources
from cais.engine.oci.process import build_environment, replace_or_append
from cais.engine.oci.security import parse_security_options
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.engine.oci.host import Host
    from cais.spec.container import ContainerConfig, ExecBody, HostConfig, Ulimit


def exec_document(
    body: ExecBody,
    config: ContainerConfig,
    host_config: HostConfig,
    host: Host,
    *,
    default_ulimits: Sequence[Ulimit] = (),
    no_new_privileges: bool = False,
) -> dict[str, Any]:
    """Return ``exec-<id>.json``: the process, and whose user and groups to look up.

    Capabilities are the container's; ``--privileged`` gives them all, in this exec alone. The
    container's system-call filter stays, as with Docker. TERM is set by the terminal of this
    exec, not by the container's.

    Raises:
        InvalidArgumentError: no command, or a directory that is not absolute.

    """
    if not body.cmd:
        raise InvalidArgumentError("No exec command specified")
    if body.working_dir and not body.working_dir.startswith("/"):
        raise InvalidArgumentError("working directory must be an absolute path")
    privileged = body.privileged or host_config.privileged
    granted = capabilities.granted(
        host_config.cap_add or (), host_config.cap_drop or (), host, privileged=privileged
    )
    options = parse_security_options(
        host_config.security_opt or (), no_new_privileges=no_new_privileges
    )
    environment = build_environment(config)
    if body.tty:
        environment = replace_or_append(["TERM=xterm"], environment)
    process: dict[str, Any] = {
        "terminal": body.tty,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": list(body.cmd),
        "env": replace_or_append(environment, body.env or ()),
        "cwd": body.working_dir or config.working_dir or "/",
        "capabilities": capabilities.document(granted),
        "noNewPrivileges": options.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj,
    }
    if limits := resources.rlimits([*default_ulimits, *(host_config.ulimits or ())]):
        process["rlimits"] = limits
    if body.tty and body.console_size and all(body.console_size):
        height, width = body.console_size
        process["consoleSize"] = {"height": height, "width": width}
    return {
        "process": process,
        "user": body.user or config.user,
        "additional_groups": list(host_config.group_add or ()),
        "privileged": body.privileged,
    }
