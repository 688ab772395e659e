"""Docker's ``filters``: name to values; values are alternatives, names add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.engine.patterns import compile_pattern
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Filters = Mapping[str, Sequence[str]]


def parse_filters(filters: Filters | None, known: frozenset[str]) -> Filters:
    """Return the filters without those that have no value.

    Raises:
        InvalidArgumentError: ``invalid filter 'x'``.

    """
    if not filters:
        return {}
    for name in filters:
        if name not in known:
            raise InvalidArgumentError(f"invalid filter '{name}'")
    return {name: values for name, values in filters.items() if values}


def parse_flag(filters: Filters, name: str) -> bool | None:
    """Return a boolean filter's value, None if it is not given.

    Raises:
        InvalidArgumentError: ``invalid filter 'name=[value]'``.

    """
    values = filters.get(name)
    if not values:
        return None
    truths = {_truth(value) for value in values}
    if len(truths) != 1 or None in truths:
        raise InvalidArgumentError(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths.pop()


def matches_labels(labels: Mapping[str, str] | None, wanted: Sequence[str]) -> bool:
    """Whether every ``key`` is there and every ``key=value`` agrees."""
    labels = labels or {}
    for item in wanted:
        key, separator, value = item.partition("=")
        if key not in labels or (separator and labels[key] != value):
            return False
    return True


def matches_no_label(labels: Mapping[str, str] | None, unwanted: Sequence[str]) -> bool:
    """Whether none of ``key`` or ``key=value`` is there (the ``label!`` filter)."""
    return not any(matches_labels(labels, [item]) for item in unwanted)


def matches_reference(pattern: str, name: str) -> bool:
    """Whether an image name as shown, with or without its tag, fits a pattern.

    Raises:
        InvalidArgumentError: ``syntax error in pattern``.

    """
    fits = compile_pattern(pattern).fullmatch
    repository = name.partition("@")[0]
    head, separator, tail = repository.rpartition(":")
    if separator and "/" not in tail:
        repository = head
    return bool(fits(name) or fits(repository))


def _truth(value: str) -> bool | None:
    if value in ("1", "t", "T", "true", "True", "TRUE"):
        return True
    if value in ("0", "f", "F", "false", "False", "FALSE"):
        return False
    return None
