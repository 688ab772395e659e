"""Network modes (what ``--network`` may be) and hardware addresses, parsed.

Spec: HostConfig.NetworkMode of the Docker Engine API.
"""

import re

from cais.errors import InvalidArgumentError

CONTAINER_PREFIX = "container:"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?P<sep>[:-])(?:[0-9A-Fa-f]{2}(?P=sep)){4}[0-9A-Fa-f]{2}")


def canonical_mode(mode: str) -> str:
    """Return the mode with Docker's defaults resolved: ``""`` and ``default`` are ``bridge``."""
    return "bridge" if mode in {"", "default"} else mode


def joined_container(mode: str) -> str | None:
    """Return the container of ``container:<name or id>``, None for another mode.

    Raises:
        InvalidArgumentError: nothing follows the colon.

    """
    if mode != "container" and not mode.startswith(CONTAINER_PREFIX):
        return None
    reference = mode[len(CONTAINER_PREFIX) :]
    if not reference:
        raise InvalidArgumentError("invalid container format container:<name|id>")
    return reference


def parse_mac(text: str) -> str:
    """Return a hardware address in lower case with colons.

    Raises:
        InvalidArgumentError: malformed, multicast, or all zero.

    """
    if not _MAC.fullmatch(text):
        raise InvalidArgumentError(f"invalid MAC address: {text[:64]!r}")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or not int(mac.replace(":", ""), 16):
        raise InvalidArgumentError(f"invalid MAC address: {mac} is not of one interface")
    return mac
