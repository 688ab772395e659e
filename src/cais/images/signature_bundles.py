"""Signatures as newer versions of cosign make them: bundles of sigstore.

A bundle is a JSON document. In its DSSE envelope is an in-toto statement, which names the digests
it is about and, by its predicate type, what it says of them; a signature covers the type and the
bytes of the statement. What a bundle says about who signed it (a key's name, a certificate, entries
of a log) is not used: a key of the policy verifies it, or none.

Spec: sigstore protobuf-specs, sigstore_bundle.proto 0.3; DSSE 1.0, protocol.md; in-toto Statement
v1; cosign, specs/BUNDLE_SPEC.md.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple, TypeVar

import msgspec

from cais.errors import InvalidArgumentError
from cais.spec import strict_json
from cais.spec.conversion import convert

_T = TypeVar("_T")

MEDIA_TYPE_PREFIX = "application/vnd.dev.sigstore.bundle"
LIMIT_BYTES = 1024 * 1024

_MEDIA_TYPES = frozenset(
    (
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        *(f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2, 3)),
    )
)
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""What ``cosign sign`` says. Other predicates tell of an image, and may well tell no good."""


class UnreadableBundleError(InvalidArgumentError):
    """A bundle of another form or purpose; the text says which."""


class _Made(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Made]


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    dsse_envelope: _Envelope | None = None


class Subject(msgspec.Struct):
    """What a statement is about."""

    digest: dict[str, str]
    name: str = ""


class _Statement(msgspec.Struct, rename="camel"):
    kind: str = msgspec.field(name="_type")
    predicate_type: str
    subject: list[Subject]


class SignedBundle(NamedTuple):
    """What a bundle claims; whether ``signature`` is good is not known yet."""

    subjects: list[Subject]
    message: bytes
    """What was signed."""

    signature: bytes


def read_bundle(content: bytes) -> SignedBundle:
    """Read a bundle that says, as ``cosign sign`` does, that its subjects are signed.

    Raises:
        UnreadableBundleError: of another version, without an envelope, or of another purpose.
        InvalidArgumentError: malformed.

    """
    bundle = _convert(content, _Bundle)
    if bundle.media_type not in _MEDIA_TYPES:
        raise UnreadableBundleError(f"bundle of type {bundle.media_type[:100]!r}")
    envelope = bundle.dsse_envelope
    if envelope is None:
        raise UnreadableBundleError("bundle without a DSSE envelope")
    if envelope.payload_type != _PAYLOAD_TYPE:
        raise UnreadableBundleError(f"bundle with a payload of {envelope.payload_type[:100]!r}")
    payload = _decoded(envelope.payload)
    statement = _convert(payload, _Statement)
    if (statement.kind, statement.predicate_type) != (_STATEMENT, _SIGNED):
        raise UnreadableBundleError(f"bundle of predicate {statement.predicate_type[:100]!r}")
    if len(envelope.signatures) != 1:  # the specification's; and each would cost a verification
        raise InvalidArgumentError(f"malformed bundle: {len(envelope.signatures)} signatures")
    return SignedBundle(
        statement.subject,
        pre_authentication(envelope.payload_type, payload),
        _decoded(envelope.signatures[0].sig),
    )


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return what a DSSE signature covers ("PAE"): type and payload, each after its length."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _convert(content: bytes, kind: type[_T]) -> _T:
    try:
        return convert(strict_json.loads(content, LIMIT_BYTES), kind)
    except (strict_json.InvalidJsonError, msgspec.ValidationError) as exc:
        raise InvalidArgumentError(f"malformed bundle: {exc}") from exc


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidArgumentError("malformed bundle: not base64") from exc
