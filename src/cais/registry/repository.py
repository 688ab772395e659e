"""One repository of one registry: its manifests and blobs.

Blobs are named by their digest and manifests verified against it, so a registry can refuse and
delay but not substitute.

Spec: OCI distribution-spec 1.1, "Pull", "Push".
"""

from __future__ import annotations

import contextlib
import copy
import re
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote, urlencode

from cais.registry.answers import Request, raise_error
from cais.registry.errors import (
    PasswordNeededError,
    ProtocolError,
    RegistryUnreachableError,
    UnknownToRegistryError,
    error_of,
)
from cais.registry.origin import Url
from cais.spec.digest import Digest, DigestMismatchError, digest_of
from cais.spec.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    LIMIT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cais.registry.answers import Answer
    from cais.registry.auth import Authenticator
    from cais.registry.cancel import Cancel
    from cais.registry.origin import Origin
    from cais.registry.transport import Transport

ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)")


class FetchedManifest(NamedTuple):
    """A manifest or index as it came, verified against ``digest``."""

    content: bytes
    media_type: str
    digest: Digest


class Repository:
    """A repository; methods block and may be called from several threads.

    Args:
        transport: carries the requests.
        origin: the registry, or a mirror of it.
        path: the repository's name there, such as ``library/busybox``.
        auth: of that origin.
        cancel: ends every request.
        can_push: ask for tokens that allow pushing.

    Every method raises RegistryError for a refusal and RegistryUnreachableError without an answer.

    """

    def __init__(
        self,
        transport: Transport,
        origin: Origin,
        path: str,
        auth: Authenticator,
        cancel: Cancel,
        *,
        can_push: bool = False,
    ) -> None:
        self.origin = origin
        self.path = path
        self._transport = transport
        self._auth = auth
        self._cancel = cancel
        self._scope = f"repository:{path}:{'pull,push' if can_push else 'pull'}"

    def with_cancel(self, cancel: Cancel) -> Self:
        """Return the same repository, whose requests ``cancel`` ends instead."""
        twin = copy.copy(self)
        twin._cancel = cancel  # noqa: SLF001 - one of ours
        return twin

    def get_manifest(self, reference: str) -> FetchedManifest:
        """Fetch a manifest or index by tag or digest.

        Raises:
            DigestMismatchError: it is not what the digest, asked for or announced, says.
            ProtocolError: longer than 4 MiB.

        """
        with self._ask("GET", f"manifests/{reference}", {"Accept": ACCEPT}) as answer:
            content = answer.read(LIMIT_BYTES)
        digest = digest_of(content)
        wanted = reference if ":" in reference else answer.headers.get("docker-content-digest")
        if wanted is not None and wanted.startswith("sha256:") and wanted != digest:
            raise DigestMismatchError(f"manifest {reference}", Digest(wanted), digest)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return FetchedManifest(content, kind, digest)

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> Digest:
        """Store a manifest under a tag or its digest; return its digest."""
        headers = {"Content-Type": media_type}
        with self._ask("PUT", f"manifests/{reference}", headers, content):
            return digest_of(content)

    @contextlib.contextmanager
    def open_blob(self, digest: Digest, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Give (position, pieces) of a blob: from ``offset``, or from 0 if it cannot be had so.

        Not verified: the caller hashes what arrives.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._ask("GET", f"blobs/{digest}", headers) as answer:
            yield _position(answer, offset), answer.pieces()

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Return a small blob, verified. ProtocolError: longer than ``limit`` bytes."""
        with self._ask("GET", f"blobs/{digest}") as answer:
            content = answer.read(limit)
        if (actual := digest_of(content)) != digest:
            raise DigestMismatchError(f"blob {digest}", digest, actual)
        return content

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository holds a blob."""
        try:
            with self._ask("HEAD", f"blobs/{digest}"):
                return True
        except UnknownToRegistryError:
            return False

    def mount_blob(self, digest: Digest, source: str) -> Url | None:
        """Take a blob over from another repository of this registry, without sending it.

        Returns:
            None when it is there now; otherwise where to send it.

        """
        url = self._url(f"blobs/uploads/?{urlencode({'mount': digest, 'from': source})}")
        scope = f"{self._scope} repository:{source}:pull"
        with self._send(Request("POST", url, {}), scope) as answer:
            return None if answer.status == 201 else _location(answer)

    def begin_upload(self) -> Url:
        """Return where to send a blob."""
        with self._ask("POST", "blobs/uploads/") as answer:
            return _location(answer)

    def upload_blob(
        self, digest: Digest, size: int, pieces: Callable[[], Iterable[bytes]], place: Url
    ) -> None:
        """Send a blob in one piece.

        Args:
            digest: what it must be.
            size: its length in bytes.
            pieces: makes an iterator over it; called again when a request is repeated.
            place: from ``begin_upload`` or ``mount_blob``.

        """
        headers = {"Content-Type": "application/octet-stream"}
        url = _with_query(place, digest=digest)
        with self._send(Request("PUT", url, headers, pieces, size)):
            return

    def stream_blob(self, pieces: Iterable[bytes], place: Url) -> Url:
        """Send a blob whose size and digest are not known yet; return where to finish it.

        Args:
            pieces: the blob, read once; after a failure the caller begins anew, at another place.
            place: from ``begin_upload`` or ``mount_blob``.

        Raises:
            RegistryUnreachableError: also when the registry wanted another token.

        """
        headers = {"Content-Type": "application/octet-stream"}
        with self._send(Request("PATCH", place, headers, iter(pieces))) as answer:
            return _location(answer)

    def finish_upload(self, digest: Digest, place: Url) -> None:
        """Say what was sent with ``stream_blob``; the registry verifies it."""
        with self._send(Request("PUT", _with_query(place, digest=digest), {})):
            return

    def get(self, place: str | Url) -> Answer:
        """Return the answer to a GET: of something below this repository, or where a link leads."""
        url = self._url(place) if isinstance(place, str) else place
        return self._send(Request("GET", url, {}))

    def _url(self, rest: str) -> Url:
        return Url(self.origin, f"/v2/{quote(self.path)}/{rest}")

    def _ask(
        self, method: str, rest: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        return self._send(Request(method, self._url(rest), headers or {}, body))

    def _send(self, request: Request, scope: str = "") -> Answer:
        """Return an answer that is no error; asked a second time when that needs a token."""
        scope = scope or self._scope
        answer = self._attempt(request, scope)
        if answer.status == 401 and request.url.origin == self.origin:
            challenge = answer.headers.get("www-authenticate", "")
            if self._auth.learn(challenge, scope):
                answer.close()
                if not request.is_repeatable:
                    raise RegistryUnreachableError(request.method, request.url, "token expired")
                answer = self._attempt(request, scope)
            elif self._auth.lacks_password(challenge):
                answer.close()
                raise PasswordNeededError
        if answer.status >= 400:
            with answer:
                if request.method == "HEAD":
                    raise error_of(answer.status, b"", f"HEAD {request.url}")
                raise_error(answer, f"{request.method} {request.url}")
        return answer

    def _attempt(self, request: Request, scope: str) -> Answer:
        headers = dict(request.headers)
        if request.url.origin == self.origin:
            authorization = self._auth.authorize(scope, self._cancel)
            if authorization:
                headers["Authorization"] = authorization
        is_repeatable = request.method in {"GET", "HEAD"}
        request = request._replace(headers=headers)
        if is_repeatable:
            return self._transport.send(request, self._cancel)
        return self._transport.send(request, self._cancel, attempts=1)


def _position(answer: Answer, offset: int) -> int:
    """Return where the body begins. ProtocolError: somewhere nobody asked for."""
    if answer.status == 200 or not offset:
        return 0
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status != 206 or found is None or int(found[1]) != offset:
        raise ProtocolError(f"{answer.url}: the registry sent another range than was asked for")
    return offset


def _location(answer: Answer) -> Url:
    location = answer.headers.get("location")
    if not location:
        raise ProtocolError(f"{answer.url}: the registry did not say where to upload")
    return answer.url.join(location)


def _with_query(url: Url, **fields: str) -> Url:
    mark = "&" if "?" in url.target else "?"
    return url._replace(target=f"{url.target}{mark}{urlencode(fields)}")
