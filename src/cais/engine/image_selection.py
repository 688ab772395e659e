"""Which images a list shows and a prune takes: Docker's filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.filters import (
    matches_labels,
    matches_no_label,
    matches_reference,
    parse_filters,
    parse_flag,
)
from cais.engine.moments import parse_moment, parse_until
from cais.engine.patterns import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cais.engine.filters import Filters
    from cais.images.records import ImageRecord

    Test = Callable[[ImageRecord], bool]

_LIST_FILTERS = frozenset(("before", "since", "dangling", "label", "label!", "reference", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


class ListSelection:
    """What ``GET /images/json`` shows.

    Args:
        filters: as the request has them.
        show_all: also images without a name that others were built on.

    Raises:
        InvalidArgumentError: an unknown filter or a value it cannot have.

    """

    def __init__(self, filters: Filters | None, *, show_all: bool) -> None:
        self._filters = parse_filters(filters, _LIST_FILTERS)
        self._is_dangling = parse_flag(self._filters, "dangling")
        self._patterns = self._filters.get("reference", ())
        for pattern in self._patterns:
            compile_pattern(pattern)  # refused even where there is no name to match
        self._show_all = show_all

    def choose(
        self,
        records: Sequence[ImageRecord],
        resolve: Callable[[str], ImageRecord],
        now_ns: int,
    ) -> list[ImageRecord]:
        """Return those of ``records`` that pass.

        Raises:
            NotFoundError: ``before`` or ``since`` of no image.

        Blocks: looks images up.

        """
        parents = _parents(records)
        tests = [*_label_tests(self._filters), *self._time_tests(resolve, now_ns)]
        return [
            record
            for record in records
            if self._is_shown(record, is_parent=record.id in parents)
            and all(test(record) for test in tests)
        ]

    def narrow(self, document: dict[str, Any]) -> dict[str, Any]:
        """Leave only the references that were asked for in a summary, as Docker does."""
        if self._patterns:
            for field in ("RepoTags", "RepoDigests"):
                document[field] = [name for name in document[field] if self._is_asked_for(name)]
        return document

    def _is_shown(self, record: ImageRecord, *, is_parent: bool) -> bool:
        names = (*record.repo_tags, *record.repo_digests)
        if self._patterns and not any(map(self._is_asked_for, names)):
            return False
        if self._is_dangling is not None:
            return not (record.repo_tags or is_parent) if self._is_dangling else bool(names)
        return bool(names) or self._show_all or not is_parent

    def _is_asked_for(self, name: str) -> bool:
        return any(matches_reference(pattern, name) for pattern in self._patterns)

    def _time_tests(self, resolve: Callable[[str], ImageRecord], now_ns: int) -> Iterator[Test]:
        for ref in self._filters.get("before", ()):
            yield _is_created_before(resolve(ref).created_ns)
        for moment in self._filters.get("until", ()):
            yield _is_created_before(parse_moment(moment, now_ns))
        for ref in self._filters.get("since", ()):
            yield _is_created_after(resolve(ref).created_ns)


class PruneSelection:
    """What ``POST /images/prune`` may take: what no container uses, and that passes the filters.

    Args:
        filters: as the request has them.
        now_ns: what durations count back from.

    Raises:
        InvalidArgumentError: an unknown filter, a value it cannot have, more than one ``until``.

    """

    def __init__(self, filters: Filters | None, now_ns: int) -> None:
        checked = parse_filters(filters, _PRUNE_FILTERS)
        self._is_dangling_only = parse_flag(checked, "dangling") is not False
        self._tests: list[Test] = list(_label_tests(checked))
        until_ns = parse_until(checked, now_ns)
        if until_ns is not None:
            self._tests.append(_is_created_by(until_ns))

    def choose(self, records: Sequence[ImageRecord], used: Iterable[str]) -> list[ImageRecord]:
        """Return those of ``records`` that pass; ``used`` are the ids containers were made from."""
        kept = {*_parents(records), *used}
        return [record for record in records if record.id not in kept and self._passes(record)]

    def _passes(self, record: ImageRecord) -> bool:
        if self._is_dangling_only and record.repo_tags:
            return False
        return all(test(record) for test in self._tests)


def _parents(records: Iterable[ImageRecord]) -> set[str]:
    """Return the ids of what other images were built on: they go with the last of those."""
    nameless = {one.id for one in records if not (one.repo_tags or one.repo_digests)}
    return {one.parent for one in records if one.parent in nameless and one.parent}


def _label_tests(filters: Filters) -> Iterator[Test]:
    if wanted := filters.get("label"):
        yield lambda record: matches_labels(_labels(record), wanted)
    if unwanted := filters.get("label!"):
        yield lambda record: not record.is_damaged and matches_no_label(_labels(record), unwanted)


def _labels(record: ImageRecord) -> Mapping[str, str] | None:
    return record.config.config.labels if record.config.config else None


def _is_created_before(moment_ns: int) -> Test:
    return lambda record: 0 < record.created_ns < moment_ns


def _is_created_after(moment_ns: int) -> Test:
    return lambda record: record.created_ns > moment_ns


def _is_created_by(moment_ns: int) -> Test:
    return lambda record: 0 < record.created_ns <= moment_ns
