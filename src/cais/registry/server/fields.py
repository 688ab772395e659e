"""What requests say in their paths and header fields, read strictly.

A name is checked before anything looks it up; none of it ever becomes part of a file's path.

Spec: OCI distribution-spec 1.1, "Pulling manifests" (names, tags), "Pushing a blob in chunks";
RFC 9110 sections 12.5.1 (Accept), 14.1.2 (byte ranges), 14.2 (Range).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cais.errors import InvalidArgumentError
from cais.registry.server.errors import RefusalError
from cais.spec.digest import Digest, parse_digest
from cais.spec.reference import InvalidReferenceError, parse_path, parse_tag

if TYPE_CHECKING:
    from cais.http.query import Query

_SHOWN = 200
_is_range = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*").fullmatch
_is_content_range = re.compile(r"([0-9]{1,18})-([0-9]{1,18})").fullmatch
_is_number = re.compile(r"[0-9]{1,20}").fullmatch


class ByteRange(NamedTuple):
    """``size`` bytes from ``offset``."""

    offset: int
    size: int


def parse_name(text: str) -> str:
    """Return a repository's name. RefusalError: NAME_INVALID."""
    try:
        return parse_path(text)
    except InvalidReferenceError as exc:
        message = "invalid repository name"
        raise RefusalError("NAME_INVALID", message, detail={"name": text[:_SHOWN]}) from exc


def parse_manifest_reference(text: str) -> Digest | str:
    """Return a digest or a tag. RefusalError: neither. InvalidDigestError."""
    if ":" in text:
        return parse_digest(text)
    try:
        return parse_tag(text)
    except InvalidReferenceError as exc:
        raise RefusalError("TAG_INVALID", "invalid tag", detail={"tag": text[:_SHOWN]}) from exc


def is_digest(reference: str) -> bool:
    """Whether a reference that was parsed is a digest."""
    return ":" in reference


def parse_range(header: str, size: int) -> ByteRange | None:
    """Read ``Range``; None: the whole is to be sent.

    Several ranges, other units and what is malformed are ignored, as RFC 9110 allows.

    Args:
        header: the field's value, "" if there is none.
        size: of the blob.

    Raises:
        RefusalError: 416, the blob ends before the range begins.

    """
    found = _is_range(header)
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found.groups()
    if not first:
        count = min(int(last), size)
        asked = ByteRange(size - count, count)
    elif last and int(last) < int(first):
        return None
    else:
        end = min(int(last) + 1, size) if last else size
        asked = ByteRange(int(first), end - int(first))
    if asked.size <= 0:
        raise RefusalError(
            "RANGE_INVALID",
            "the blob ends before the range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return asked


def parse_content_range(header: str) -> ByteRange:
    """Read a chunk's ``Content-Range``, ``<first>-<last>``. RefusalError: 416."""
    found = _is_content_range(header)
    if found is None or int(found[2]) < int(found[1]):
        raise RefusalError("RANGE_INVALID", "malformed Content-Range", detail=header[:_SHOWN])
    first, last = int(found[1]), int(found[2])
    return ByteRange(first, last - first + 1)


def parse_length(header: str | None) -> int | None:
    """Read a ``Content-Length``; None: not told beforehand."""
    return int(header) if header is not None and _is_number(header.strip()) else None


def media_type_of(header: str) -> str:
    """Return a ``Content-Type`` without its parameters."""
    return header.partition(";")[0].strip().lower()


def accepts(header: str, media_type: str) -> bool:
    """Whether an ``Accept`` allows a media type; one that is empty allows any."""
    if not header.strip():
        return True
    main = media_type.partition("/")[0]
    wanted = {media_type, f"{main}/*", "*/*"}
    for entry in header.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0{0,3})?", each) for each in parameters)
        if kind in wanted and not refused:
            return True
    return False


def page_size(query: Query, default: int, limit: int) -> int:
    """Read ``n``, at most ``limit``. RefusalError: not a number."""
    try:
        number = query.integer("n")
    except InvalidArgumentError as exc:
        raise _bad_page(query) from exc
    if number is None:
        return default
    if number < 0:
        raise _bad_page(query)
    return min(number, limit)


def _bad_page(query: Query) -> RefusalError:
    return RefusalError(
        "PAGINATION_NUMBER_INVALID",
        "invalid number of results",
        detail={"n": query.text("n")[:_SHOWN]},
    )
