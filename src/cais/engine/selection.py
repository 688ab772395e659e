"""Which containers ``docker ps`` shows: its filters.

Spec: docker-engine-api v1.51, the filters of ContainerList.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
HEALTH_STATES = ("starting", "healthy", "unhealthy", "none")
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")


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
    checked = parse_filters(filters, frozenset(_TESTS) | _REFERRING)
    tests = [_test(name, values, table, image_ids_of) for name, values in checked.items()]
    if not (show_all or limit or {"status", "exited", "before", "since"} & checked.keys()):
        tests.append(lambda one: one.record.state.running)
    newest_first = sorted(table, key=lambda one: one.record.created_at_ns, reverse=True)
    found = [one for one in newest_first if all(test(one) for test in tests)]
    return found[:limit] if limit and limit > 0 else found


def _test(
    name: str,
    values: Sequence[str],
    table: Table,
    image_ids_of: Callable[[str], Collection[str]],
) -> Test:
    if name in ("before", "since"):
        return _order(name, values, table)
    if name == "ancestor":
        images = {image for value in values for image in image_ids_of(value)}
        return lambda one: one.record.image_id in images
    return _TESTS[name](values)


def _status(values: Sequence[str]) -> Test:
    _check_values("status", values, STATES)
    return lambda one: one.record.state.status in values


def _health(values: Sequence[str]) -> Test:
    _check_values("health", values, HEALTH_STATES)
    return lambda one: _health_word(one.record) in values


def _exited(values: Sequence[str]) -> Test:
    codes = [_exit_code(value) for value in values]
    return lambda one: _has_exited(one.record) and one.record.state.exit_code in codes


def _label(values: Sequence[str]) -> Test:
    return lambda one: matches_labels(one.record.labels, values)


def _id(values: Sequence[str]) -> Test:
    return lambda one: any(one.id.startswith(value) for value in values)


def _volume(values: Sequence[str]) -> Test:
    return lambda one: any(
        mount.destination in values or mount.name in values or mount.source in values
        for mount in one.record.mounts
    )


def _network(values: Sequence[str]) -> Test:
    return lambda one: _is_on_network(one.record, values)


def _is_task(values: Sequence[str]) -> Test:
    is_wanted = parse_flag({"is-task": values}, "is-task")
    return lambda _: not is_wanted


def _publish(values: Sequence[str]) -> Test:
    for value in values:
        _port("publish", value)
    return lambda _: False  # nothing is published by this version


def _expose(values: Sequence[str]) -> Test:
    ports = [_port("expose", value) for value in values]
    return lambda one: any(port in (one.record.config.exposed_ports or ()) for port in ports)


def _isolation(_: Sequence[str]) -> Test:
    return lambda _: True  # Windows only


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


def _name(values: Sequence[str]) -> Test:
    """Names are regular expressions, found anywhere, with or without the slash."""
    try:
        patterns = [re.compile(value) for value in values]
    except re.error as exc:
        raise InvalidArgumentError(f"invalid filter 'name': {exc}") from exc
    return lambda one: any(
        pattern.search(one.record.name) or pattern.search(one.record.name[1:])
        for pattern in patterns
    )


def _order(name: str, values: Sequence[str], table: Table) -> Test:
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


_TESTS: dict[str, Callable[[Sequence[str]], Test]] = {
    "exited": _exited,
    "expose": _expose,
    "health": _health,
    "id": _id,
    "is-task": _is_task,
    "isolation": _isolation,
    "label": _label,
    "name": _name,
    "network": _network,
    "publish": _publish,
    "status": _status,
    "volume": _volume,
}
_REFERRING = frozenset(("ancestor", "before", "since"))
"""To an image or to other containers, which have to be looked up."""
