"""Documents that no client would push, put into a registry as they are."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from cais.spec.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.testing.daemon import TestDaemon

_SEND = """
import json, sys, urllib.request
def send(method, url, content, kind):
    asked = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
    return urllib.request.urlopen(asked, timeout=60).headers
origin, repository, blobs, manifests = json.load(sys.stdin)
base = origin + "/v2/" + repository
for digest, text in blobs:
    place = send("POST", base + "/blobs/uploads/", b"", "x/y")["Location"]
    place = place if "://" in place else origin + place
    mark = "&" if "?" in place else "?"
    send("PUT", place + mark + "digest=" + digest, text.encode(), "application/octet-stream")
for name, kind, text in manifests:
    send("PUT", base + "/manifests/" + name, text.encode(), kind)
"""


def send_documents(
    daemon: TestDaemon,
    name: str,
    blobs: Iterable[str],
    manifests: Iterable[tuple[str, str, str]],
) -> None:
    """Put blobs, and manifests of (tag, media type, text), into a registry beside the daemon.

    Args:
        daemon: in whose namespaces the registry answers.
        name: of the registry and the repository, ``localhost:5000/some/box``.
        blobs: their texts.
        manifests: in the order in which they are sent.

    """
    registry, _, repository = name.partition("/")
    described = [(digest_of(text.encode()), text) for text in blobs]
    document = json.dumps((f"http://{registry}", repository, described, list(manifests)))
    daemon.run_client([*daemon.enter_namespaces, sys.executable, "-c", _SEND], document)
