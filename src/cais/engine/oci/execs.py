"""The process of ``docker exec``: like the container's own, with what the request changes.

Spec: docker-engine-api v1.51, /containers/{id}/exec; architecture.md 3.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.oci.process import (
    Program,
    build_environment,
    build_process,
    replace_or_append,
)
from cais.engine.oci.security import parse_security_options
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.engine.oci.host import Host
    from cais.spec.container import ContainerConfig, ExecBody, HostConfig


def exec_document(
    body: ExecBody, config: ContainerConfig, host_config: HostConfig, host: Host
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
    environment = build_environment(config, tty=body.tty)
    program = Program(
        args=body.cmd,
        environment=replace_or_append(environment, body.env or ()),
        working_directory=body.working_dir or config.working_dir,
        tty=body.tty,
        console_size=body.console_size,
        privileged=body.privileged or host_config.privileged,
    )
    options = parse_security_options(host_config.security_opt or ())
    return {
        "process": build_process(program, host_config, options, host),
        "user": body.user or config.user,
        "additional_groups": list(host_config.group_add or ()),
        "privileged": body.privileged,
    }
