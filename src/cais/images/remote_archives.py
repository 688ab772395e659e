"""Archives that the daemon fetches itself: ``docker import http://...``.

http and https only, at most five redirects and never from https to http, no credential sent, a
deadline for each step and none for the whole: an archive may be long, but it may not stand still.
"""

from __future__ import annotations

import contextlib
import os
from http.client import responses
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError, NotFoundError, UnavailableError
from cais.registry.answers import Request
from cais.registry.origin import parse_url
from cais.registry.proxies import Proxies
from cais.registry.transport import Transport
from cais.registry.trust import verifying_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.errors import CaisError
    from cais.registry.answers import Answer
    from cais.registry.cancel import Cancel
    from cais.registry.origin import Url

_ERROR_BYTES = 1024


def complete_url(text: str) -> str:
    """Return a URL as it will be asked: without a scheme it is http, as Docker has it."""
    return text if "://" in text else f"http://{text}"


@contextlib.contextmanager
def open_remote(
    text: str, cancel: Cancel, progress: Callable[[int, int], None]
) -> Iterator[RemoteArchive]:
    """Give an archive as a file to read; its connection is closed at the end.

    Args:
        text: the URL.
        cancel: ends it.
        progress: told how many bytes have come, and of how many; 0: nobody knows.

    Raises:
        InvalidUrlError: malformed, or of another scheme.
        InvalidArgumentError, NotFoundError, UnavailableError: the server refused.
        RegistryUnreachableError: no server answers.

    """
    proxies = Proxies.from_environment(os.environ)
    transport = Transport(lambda _: verifying_context(), proxies)
    url = parse_url(complete_url(text))
    with contextlib.closing(transport), transport.send(Request("GET", url, {}), cancel) as answer:
        _check(answer, url)
        yield RemoteArchive(answer, progress)


class RemoteArchive:
    """The bytes of an answer; see ``open_remote``."""

    def __init__(self, answer: Answer, progress: Callable[[int, int], None]) -> None:
        self._pieces = answer.pieces()
        self._progress = progress
        self._total = _length(answer)
        self._current = 0
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; empty at the end. Blocks: for the network.

        Raises:
            RegistryUnreachableError: it broke off, stood still, or crawled.

        """
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self._current += len(self._rest)
            self._progress(self._current, self._total)
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk


def _length(answer: Answer) -> int:
    text = answer.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _check(answer: Answer, url: Url) -> None:
    if answer.status == 200:
        return
    body = b"".join(answer.pieces(_ERROR_BYTES))[:_ERROR_BYTES].decode("utf-8", "replace").strip()
    kind: type[CaisError] = NotFoundError if answer.status == 404 else InvalidArgumentError
    if answer.status >= 500:
        kind = UnavailableError
    phrase = responses.get(answer.status, "")
    raise kind(f"failed to GET {url} with status {answer.status} {phrase}".rstrip() + f": {body}")
