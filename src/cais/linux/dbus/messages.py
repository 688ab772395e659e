"""D-Bus messages: a method call as bytes, and what comes back as a value.

    fixed part   byte order, type, flags, version 1, body length, serial, field array length
    fields       array of (code, variant), padded to eight bytes
    body         values of the signature field

Spec: D-Bus Specification 0.38, "Message Protocol".
"""

from __future__ import annotations

import struct

from cais.linux.dbus import wire
from cais.linux.dbus.wire import Variant, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
FIXED_BYTES = 16
LIMIT_BYTES = 1 << 27
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL = 1, 2, 3, 4, 5
_DESTINATION, _SIGNATURE = 6, 8


class Message:
    """One received message; fields it does not have are empty."""

    __slots__ = ("body", "error_name", "interface", "kind", "member", "reply_serial")

    def __init__(self, kind: int, fields: dict[int, Any], body: bytes) -> None:
        self.kind = kind
        self.interface = str(fields.get(_INTERFACE, ""))
        self.member = str(fields.get(_MEMBER, ""))
        self.error_name = str(fields.get(_ERROR_NAME, ""))
        self.reply_serial = int(fields.get(_REPLY_SERIAL, 0))
        self.body = wire.decode(str(fields.get(_SIGNATURE, "")), body)


class Target:
    """Where a call goes; on a connection without a bus, the destination is not looked at."""

    __slots__ = ("destination", "interface", "path")

    def __init__(self, destination: str, path: str, interface: str) -> None:
        self.destination = destination
        self.path = path
        self.interface = interface


def call(serial: int, target: Target, member: str, signature: str, values: Sequence[Any]) -> bytes:
    """Return a method call that wants an answer."""
    body = wire.encode(signature, values)
    fields: list[tuple[int, Variant]] = [
        (_PATH, Variant("o", target.path)),
        (_INTERFACE, Variant("s", target.interface)),
        (_MEMBER, Variant("s", member)),
        (_DESTINATION, Variant("s", target.destination)),
    ]
    if signature:
        fields.append((_SIGNATURE, Variant("g", signature)))
    head = [ord("l"), CALL, 0, 1, len(body), serial, fields]
    out = bytearray(wire.encode("yyyyuua(yv)", head))
    wire.pad(out, 8)
    return bytes(out) + body


def length(fixed: bytes) -> int:
    """Return how many bytes the message has whose first ``FIXED_BYTES`` are these.

    Raises:
        WireError: not a message, one in the other byte order, or an unreasonable one.

    """
    order, _, _, version, body, _, fields = struct.unpack("<BBBBIII", fixed)
    total: int = FIXED_BYTES + (fields + 7) // 8 * 8 + body
    if order != ord("l") or version != 1:
        raise WireError("not a little-endian D-Bus message")
    if total > LIMIT_BYTES:
        raise WireError("a D-Bus message is too long")
    return total


def parse(data: bytes) -> Message:
    """Read one whole message, of the size ``length`` said.

    Raises:
        WireError: malformed.

    """
    _, kind, _, _, body_bytes, _, pairs = wire.decode("yyyyuua(yv)", data)
    body = data[len(data) - body_bytes :] if body_bytes else b""
    return Message(kind, {code: variant.value for code, variant in pairs}, body)
