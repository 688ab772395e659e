"""``docker ps``: summaries, their human status, and the filters.

Spec: docker-engine-api v1.51, ContainerSummary and the filters of ContainerList.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cais.engine.filters import matches_labels, parse_filters, parse_flag
from cais.engine.inspection import networks_document
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cais.engine.records import ContainerRecord
    from cais.engine.table import Container, Table

    Filters = Mapping[str, Sequence[str]]
    Test = Callable[[Container], bool]

STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")
HEALTH_STATES = ("starting", "healthy", "unhealthy", "none")
_FILTERS = frozenset(
    (
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation"),
        *("label", "name", "network", "publish", "since", "status", "volume"),
    )
)


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


def select(
    table: Table,
    *,
    show_all: bool,
    limit: int | None,
    filters: Filters | None,
    image_ids_of: Callable[[str], Collection[str]],
) -> list[Container]:
    """Return the containers a list shows, newest first.

    Args:
        table: all containers.
        show_all: also those that do not run.
        limit: at most so many; implies ``show_all``.
        filters: as the API gives them.
        image_ids_of: the ids of an ``ancestor`` image and everything built on it.

    Raises:
        InvalidArgumentError: unknown filter or value.
        ContainerNotFoundError: ``before`` or ``since`` name nothing.

    """
    checked = parse_filters(filters, _FILTERS)
    tests = _tests(checked, table, image_ids_of)
    if not (show_all or limit or {"status", "exited", "before", "since"} & checked.keys()):
        tests.append(lambda one: one.record.state.running)
    newest_first = sorted(table, key=lambda one: one.record.created_at_ns, reverse=True)
    found = [one for one in newest_first if all(test(one) for test in tests)]
    return found[:limit] if limit and limit > 0 else found


def _tests(
    filters: Filters, table: Table, image_ids_of: Callable[[str], Collection[str]]
) -> list[Test]:
    return [
        test
        for name, values in filters.items()
        if (test := _test(name, values, table, image_ids_of)) is not None
    ]


def _test(
    name: str,
    values: Sequence[str],
    table: Table,
    image_ids_of: Callable[[str], Collection[str]],
) -> Test | None:
    match name:
        case "status":
            _check_values("status", values, STATES)
            return lambda one: one.record.state.status in values
        case "health":
            _check_values("health", values, HEALTH_STATES)
            return lambda one: _health_word(one.record) in values
        case "exited":
            codes = [_exit_code(value) for value in values]
            return lambda one: _has_exited(one.record) and one.record.state.exit_code in codes
        case "label":
            return lambda one: matches_labels(one.record.labels, values)
        case "id":
            return lambda one: any(one.id.startswith(value) for value in values)
        case "name":
            return _name_test(values)
        case "before" | "since":
            return _order_test(name, values, table)
        case "ancestor":
            images = {image for value in values for image in image_ids_of(value)}
            return lambda one: one.record.image_id in images
        case "volume":
            return lambda one: any(
                mount.destination in values or mount.name in values or mount.source in values
                for mount in one.record.mounts
            )
        case "network":
            return lambda one: _is_on_network(one.record, values)
        case "is-task":
            is_wanted = parse_flag({name: values}, name)
            return lambda _: not is_wanted
        case "publish":
            _ = [_port(name, value) for value in values]
            return lambda _: False  # nothing is published by this version
        case "expose":
            ports = [_port(name, value) for value in values]
            return lambda one: any(
                port in (one.record.config.exposed_ports or ()) for port in ports
            )
    return None  # isolation: Windows only


def _check_values(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise InvalidArgumentError(f"invalid filter '{name}={value}'")


def _exit_code(value: str) -> int:
    try:
        return int(value)
    except ValueError as exc:
        raise InvalidArgumentError(f"invalid filter 'exited={value}'") from exc


def _has_exited(record: ContainerRecord) -> bool:
    return not record.state.running and bool(record.state.started_at_ns)


def _health_word(record: ContainerRecord) -> str:
    return record.state.health.status if record.state.health else "none"


def _name_test(values: Sequence[str]) -> Test:
    """Names are regular expressions, found anywhere, with or without the slash."""
    try:
        patterns = [re.compile(value) for value in values]
    except re.error as exc:
        raise InvalidArgumentError(f"invalid filter 'name': {exc}") from exc
    return lambda one: any(
        pattern.search(one.record.name) or pattern.search(one.record.name[1:])
        for pattern in patterns
    )


def _order_test(name: str, values: Sequence[str], table: Table) -> Test:
    moments = [table.resolve(value).record.created_at_ns for value in values]
    if name == "before":
        return lambda one: one.record.created_at_ns < min(moments)
    return lambda one: one.record.created_at_ns > max(moments)


def _is_on_network(record: ContainerRecord, values: Sequence[str]) -> bool:
    networks = networks_document(record)
    return any(
        value == name or (document["NetworkID"] and document["NetworkID"].startswith(value))
        for name, document in networks.items()
        for value in values
    )


def _port(name: str, value: str) -> str:
    number, _, protocol = value.partition("/")
    if not _PORTS.fullmatch(number):
        raise InvalidArgumentError(f"invalid filter '{name}={value}'")
    return f"{number}/{protocol or 'tcp'}"


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
