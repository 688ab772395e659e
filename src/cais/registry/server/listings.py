"""What there is: the greeting, repositories, tags, referrers; in pages.

Spec: OCI distribution-spec 1.1, "Determining Support", "Listing Tags", "Listing Referrers";
Docker Registry HTTP API V2, "Listing Repositories".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cais.http.messages import JSON, Response, encode_json, json_response
from cais.registry.server.fields import page_size
from cais.registry.server.routes import Deed, Route
from cais.spec.digest import parse_digest
from cais.spec.image import LIMIT_BYTES, OCI_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.http.messages import Answer
    from cais.registry.server.catalog import ManifestRow
    from cais.registry.server.routes import Call
    from cais.registry.server.shelf import Shelf

TAGS_PAGE = 1000
CATALOG_PAGE = 100
CATALOG_LIMIT = 1000
REFERRERS_PAGE = 1000
_INDEX_BYTES = LIMIT_BYTES // 2
"""Of descriptors in one page: clients refuse an index of more than 4 MiB."""


class ListingRoutes:
    """Answers that list."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        return (
            Route("GET", "/v2/", Deed.READ, self.greet),
            Route("HEAD", "/v2/", Deed.READ, self.greet),
            Route("GET", "/v2/_catalog", Deed.READ, self.catalog),
            Route("GET", "/v2/{name}/tags/list", Deed.READ, self.tags),
            Route("GET", "/v2/{name}/referrers/{place}", Deed.READ, self.referrers),
        )

    async def greet(self, call: Call) -> Answer:
        """Say that this is a registry."""
        del call
        return Response(200, b"{}", JSON)

    async def catalog(self, call: Call) -> Answer:
        """List the repositories that have something to pull."""
        count = page_size(call.query, CATALOG_PAGE, CATALOG_LIMIT)
        names = await self._shelf.repositories(call.query.text("last"), count + 1)
        page = names[:count]
        return _page({"repositories": page}, call, "/v2/_catalog", page, is_last=names == page)

    async def tags(self, call: Call) -> Answer:
        """List a repository's tags."""
        count = page_size(call.query, TAGS_PAGE, TAGS_PAGE)
        names = await self._shelf.tags(call.repository, call.query.text("last"), count + 1)
        page = names[:count]
        path = f"/v2/{call.repository}/tags/list"
        document = {"name": call.repository, "tags": page}
        return _page(document, call, path, page, is_last=names == page)

    async def referrers(self, call: Call) -> Answer:
        """List the manifests about another one, as an index; never 404."""
        subject = parse_digest(call.place)
        kind = call.query.text("artifactType")
        rows = await self._shelf.referrers(
            call.repository, subject, kind, call.query.text("last"), REFERRERS_PAGE + 1
        )
        page = _fitting(rows[:REFERRERS_PAGE])
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [_descriptor(row) for row in page],
        }
        headers = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        if len(page) < len(rows):
            query = {"last": page[-1].digest, **({"artifactType": kind} if kind else {})}
            headers |= _next(f"/v2/{call.repository}/referrers/{subject}", query)
        return Response(200, encode_json(document), OCI_INDEX, headers)


def _page(document: Any, call: Call, path: str, page: list[str], *, is_last: bool) -> Response:  # noqa: ANN401
    answer = json_response(document)
    if page and not is_last:
        size = {"n": call.query.text("n")} if call.query.text("n") else {}
        answer.headers = _next(path, {"last": page[-1], **size})
    return answer


def _next(path: str, query: dict[str, str]) -> dict[str, str]:
    return {"Link": f'<{path}?{urlencode(query)}>; rel="next"'}


def _fitting(rows: list[ManifestRow]) -> list[ManifestRow]:
    """Return as many as an index may hold, at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += len(encode_json(_descriptor(row)))
        if total > _INDEX_BYTES and count:
            return rows[:count]
    return rows


def _descriptor(row: ManifestRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mediaType": row.media_type,
        "digest": row.digest,
        "size": row.size_bytes,
    }
    if row.artifact_type:
        found["artifactType"] = row.artifact_type
    if row.annotations:
        found["annotations"] = dict(row.annotations)
    return found
