"""API versions: which are spoken, and how older ones differ from the newest.

Handlers make the newest shape; ``reshape_*`` take back for older clients what they would trip on.

Spec: docker-engine-api v1.51, and the version history of the Engine API.
"""

from __future__ import annotations

import re
from typing import Any

from cais.errors import InvalidArgumentError
from cais.spec import strict_json

ApiVersion = tuple[int, int]
Document = dict[str, Any]

# Members of an image's Config that had a place in it, empty, until 1.49.
_CONFIG_BEFORE_1_50: Document = {
    **dict.fromkeys(("Hostname", "Domainname", "Image"), ""),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), False),
    **dict.fromkeys(("Tty", "OpenStdin", "StdinOnce"), False),
}
NEWEST: ApiVersion = (1, 51)
OLDEST: ApiVersion = (1, 24)
_VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")


def format_version(version: ApiVersion) -> str:
    """Return ``1.51`` for ``(1, 51)``."""
    return f"{version[0]}.{version[1]}"


def parse_version(text: str) -> ApiVersion:
    """Read what stands after ``/v`` in a path.

    Raises:
        InvalidArgumentError: not a version, or one that is not spoken (dockerd's texts).

    """
    if not _VERSION.fullmatch(text):
        raise InvalidArgumentError(f"invalid API version: {text[:32]}")
    major, _, minor = text.partition(".")
    version = (int(major), int(minor))
    if version > NEWEST:
        raise InvalidArgumentError(
            f"client version {text} is too new."
            f" Maximum supported API version is {format_version(NEWEST)}"
        )
    if version < OLDEST:
        raise InvalidArgumentError(
            f"client version {text} is too old. Minimum supported API version is"
            f" {format_version(OLDEST)}, please upgrade your client to a newer version"
        )
    return version


def stream_content_type(version: ApiVersion, *, tty: bool) -> str:
    """Name an attachment's framing: before 1.42 everything was called a raw stream."""
    if version >= (1, 42) and not tty:
        return "application/vnd.docker.multiplexed-stream"
    return "application/vnd.docker.raw-stream"


def reshape_container(document: Document, version: ApiVersion) -> Document:
    """Give ``GET /containers/{id}/json``, or a row of the list, the shape of an older version."""
    if version < (1, 48):
        document.pop("ImageManifestDescriptor", None)
    _reshape_networks(document, version)
    if version < (1, 46):
        document.get("HostConfig", {}).pop("Annotations", None)
    return document


def _reshape_networks(document: Document, version: ApiVersion) -> None:
    networks = document.get("NetworkSettings", {}).get("Networks") or {}
    for network in networks.values():
        if version < (1, 44):
            network.pop("DNSNames", None)
        if version < (1, 48):
            network.pop("GwPriority", None)


def reshape_create_request(raw: bytes, version: ApiVersion) -> bytes:
    """Give a body of ``POST /containers/create`` the meaning it had in ``version``.

    Fields an older version did not know are taken out; its defaults are written in.
    """
    if version >= (1, 44):
        return raw
    body = strict_json.loads(raw, len(raw))
    if not isinstance(body, dict) or not isinstance(host := body.get("HostConfig") or {}, dict):
        return raw
    if version < (1, 43):
        host.pop("Annotations", None)
    if version < (1, 42):
        host.pop("ConsoleSize", None)
    if version < (1, 41):
        host["CgroupnsMode"] = host.get("CgroupnsMode") or "host"
    if version < (1, 40):
        host["IpcMode"] = host.get("IpcMode") or "shareable"
    if isinstance(health := body.get("Healthcheck"), dict):
        health.pop("StartInterval", None)
    body["HostConfig"] = host
    return strict_json.dumps(body)


def reshape_image(document: Document, version: ApiVersion) -> Document:
    """Give ``GET /images/{name}/json`` the shape of an older version."""
    if version < (1, 50):
        document["Config"] = {**_CONFIG_BEFORE_1_50, **(document.get("Config") or {})}
    if version < (1, 48):
        document.pop("Descriptor", None)
        document.pop("Manifests", None)
    if version < (1, 44):
        document["VirtualSize"] = document.get("Size", 0)
        document.setdefault("Created", "0001-01-01T00:00:00Z")
    return document


def reshape_image_summary(document: Document, version: ApiVersion) -> Document:
    """Give a row of ``GET /images/json`` the shape of an older version."""
    if version < (1, 48):
        document.pop("Descriptor", None)
    if version < (1, 44):
        document["VirtualSize"] = document.get("Size", 0)
    if version < (1, 43) and not document.get("RepoTags") and not document.get("RepoDigests"):
        document["RepoTags"] = ["<none>:<none>"]
        document["RepoDigests"] = ["<none>@<none>"]
    return document


def reshape_disk_use(document: Document, version: ApiVersion) -> Document:
    """Give ``GET /system/df`` the shape of an older version."""
    for image in document["Images"] or ():
        reshape_image_summary(image, version)
    for container in document["Containers"] or ():
        reshape_container(container, version)
    if version < (1, 42):
        document["BuilderSize"] = 0
    return document


def reshape_info(document: Document, version: ApiVersion) -> Document:
    """Give ``GET /info`` the shape of an older version."""
    if version < (1, 49):
        document.pop("FirewallBackend", None)
    if version < (1, 50):
        document.pop("DiscoveredDevices", None)
        document.setdefault("BridgeNfIptables", False)
        document.setdefault("BridgeNfIp6tables", False)
    return document


def reshape_event(event: Document) -> Document:
    """Add the fields that events had before they had actors; dockerd still sends them in 1.51."""
    actor = event.get("Actor", {})
    if event.get("Type") == "container":
        image = actor.get("Attributes", {}).get("image", "")
        return {"status": event["Action"], "id": actor.get("ID", ""), "from": image, **event}
    if event.get("Type") == "image":
        return {"status": event["Action"], "id": actor.get("ID", ""), **event}
    return event
