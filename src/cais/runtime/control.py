"""Signal, freeze, limit and take away containers that are there."""

from __future__ import annotations

from cais.errors import ConflictError
from cais.linux.signals import pidfd_send_signal
from cais.runtime import groups
from cais.runtime.bundles import load_config
from cais.spec.runtime import validate_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.spec.runtime import Resources


def kill(container_id: str, bundle: str, init_pidfd: int, number: int) -> None:
    """Send a signal to the container's first process, ``init_pidfd`` (borrowed).

    Raises:
        ConflictError: it has ended.

    """
    del bundle
    try:
        pidfd_send_signal(init_pidfd, number)
    except ProcessLookupError as error:
        raise ConflictError(f"container {container_id} has ended") from error


def kill_all(container_id: str, bundle: str) -> None:
    """Kill every process of the container and wait until it is gone.

    Blocks: up to 10 s for a process stuck in the kernel.
    """
    groups.group_of(container_id, bundle).kill_all()


def pause(container_id: str, bundle: str) -> None:
    """Freeze every process of the container.

    Raises:
        ConflictError: it is not running.

    """
    groups.existing_group(container_id, bundle).freeze()


def resume(container_id: str, bundle: str) -> None:
    """Let a frozen container run again."""
    groups.existing_group(container_id, bundle).thaw()


def update(container_id: str, bundle: str, resources: Resources) -> None:
    """Change the limits ``resources`` names; the others stay.

    Raises:
        InvalidArgumentError: not a document of limits, or they contradict each other; or it uses
            more memory than the new limit, where this document or its own asks for the check.
        ConflictError: it is not running.

    """
    wanted = validate_resources(resources)
    if "memory" in wanted and "checkBeforeUpdate" not in wanted["memory"]:
        present = load_config(bundle).get("linux", {}).get("resources", {}).get("memory", {})
        if present.get("checkBeforeUpdate"):
            wanted["memory"] = {**wanted["memory"], "checkBeforeUpdate": True}
    groups.existing_group(container_id, bundle).apply(wanted)


def destroy(container_id: str, bundle: str) -> bool:
    """Kill what is left in the container's cgroup and remove the cgroup; idempotent.

    Call it after the first process has been reaped.

    Returns:
        Whether the kernel's OOM killer ended a process of this container.

    Blocks: up to 10 s for a process stuck in the kernel.

    """
    group = groups.group_of(container_id, bundle)
    oom_killed = group.oom_kills() > 0
    groups.end(group)
    groups.forget(container_id)
    return oom_killed


def cgroup_of(container_id: str, bundle: str) -> Cgroup:
    """Return the container's control group: for its processes, counters and OOM events."""
    return groups.group_of(container_id, bundle)
