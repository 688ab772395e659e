"""``docker ps``: summaries and their human status; which of them is ``selection``'s.

Spec: docker-engine-api v1.51, ContainerSummary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.inspection import networks_document

if TYPE_CHECKING:
    from cais.engine.records import ContainerRecord


def summary(record: ContainerRecord, now_ns: int) -> dict[str, Any]:
    """Return one entry of ``GET /containers/json`` without the sizes."""
    return {
        "Id": record.id,
        "Names": [record.name],
        "Image": record.image_ref,
        "ImageID": record.image_id,
        "Command": " ".join(_quoted(word) for word in (record.path, *record.args)),
        "Created": record.created_at_ns // 1_000_000_000,
        "Ports": _ports(record),
        "Labels": record.labels,
        "State": record.state.status,
        "Status": human_status(record, now_ns),
        "HostConfig": {
            "NetworkMode": record.network_mode,
            **(
                {"Annotations": record.host_config.annotations}
                if record.host_config.annotations
                else {}
            ),
        },
        "NetworkSettings": {"Networks": networks_document(record)},
        "Mounts": [mount.to_docker() for mount in record.mounts if mount.is_listed],
    }


def human_status(record: ContainerRecord, now_ns: int) -> str:
    """Return ``Up 2 minutes (healthy)``, ``Exited (0) 3 hours ago``, ``Created``."""
    state = record.state
    since_start = human_duration((now_ns - state.started_at_ns) / 1e9)
    since_end = human_duration((now_ns - state.finished_at_ns) / 1e9)
    if state.running:
        if state.paused:
            return f"Up {since_start} (Paused)"
        if state.restarting:
            return f"Restarting ({state.exit_code}) {since_end} ago"
        if state.health is not None:
            word = state.health.status
            shown = "health: starting" if word == "starting" else word
            return f"Up {since_start} ({shown})"
        return f"Up {since_start}"
    if state.removing:
        return "Removal In Progress"
    if state.dead:
        return "Dead"
    if not state.started_at_ns:
        return "Created"
    if not state.finished_at_ns:
        return ""
    return f"Exited ({state.exit_code}) {since_end} ago"


def human_duration(seconds: float) -> str:
    """Round a duration as Docker's lists do."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def _ports(record: ContainerRecord) -> list[dict[str, Any]]:
    if not record.state.running:
        return []
    found = []
    for port in sorted(record.config.exposed_ports or ()):
        number, _, protocol = port.partition("/")
        if number.isdigit():
            found.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return found


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word
