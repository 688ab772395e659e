"""Signatures of images as cosign makes them with a key.

There are two forms. Of old, what is signed is a small JSON document, the payload, that names the
digest of a manifest or index: it is a layer of an artifact in the image's own repository, the
signature an annotation of that layer, and the artifact is found under the tag ``sha256-<hex>.sig``
or as a referrer of the image. Newer versions write bundles (``signature_bundles``), each the layer
of a referrer. A registry can hide a signature and offer any number of wrong ones, but make none.

Spec: cosign, specs/SIGNATURE_SPEC.md ("simple signing") and BUNDLE_SPEC.md; OCI distribution-spec
1.1, referrers.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cais.errors import CaisError, InvalidArgumentError
from cais.images.signature_bundles import MEDIA_TYPE_PREFIX, UnreadableBundleError, read_bundle
from cais.images.signing_keys import is_made_by
from cais.registry.discovery import referrers
from cais.registry.errors import UnknownToRegistryError
from cais.spec import strict_json
from cais.spec.conversion import convert
from cais.spec.digest import encoded, parse_digest
from cais.spec.image import Manifest, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cais.images.signing_keys import Key
    from cais.registry.repository import Repository
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor

_PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
_ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
"""As which some versions of cosign list their bundles."""

_ANNOTATION = "dev.cosignproject.cosign/signature"
_KIND = "cosign container image signature"
_LIMIT_BYTES = 1024 * 1024
_MOST = 100
"""Signatures looked at: each costs a request."""


class Search(NamedTuple):
    """What a search for signatures found."""

    is_signed: bool
    passed_over: tuple[str, ...] = ()
    """What kinds of signatures were there that are not read."""


class _Claim(NamedTuple):
    """That somebody signed this image; whether it is true depends on the signature."""

    message: bytes
    signature: bytes


class _Identity(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="docker-reference", default="")


class _Image(msgspec.Struct):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct):
    image: _Image
    type: str
    identity: _Identity = _Identity()


class _Payload(msgspec.Struct):
    critical: _Critical


def search_signature(
    source: Repository, digest: Digest, keys: Sequence[Key], name: str | None = None
) -> Search:
    """Look whether one of the keys signed a manifest.

    Args:
        source: the repository it is in.
        digest: of the manifest or index.
        keys: any one of them will do.
        name: the repository the signature must have been made for, in full; None: any.

    Raises:
        RegistryError, RegistryUnreachableError: the registry does not say what it has.

    Blocks: for a few requests.

    """
    passed_over: dict[str, None] = {}
    for layer in itertools.islice(_layers(source, digest), _MOST):
        try:
            claim = _claim(source, layer, digest, name)
        except UnreadableBundleError as error:
            passed_over[str(error)] = None
        except CaisError:
            continue  # what is wrong with one says nothing of the next
        else:
            if claim and any(is_made_by(key, *claim) for key in keys):
                return Search(is_signed=True)
    return Search(is_signed=False, passed_over=tuple(passed_over))


def _claim(
    source: Repository, layer: Descriptor, digest: Digest, name: str | None
) -> _Claim | None:
    """Return what a layer claims; None: nothing of this image.

    Raises:
        CaisError: it is malformed, another one than is named, or of no known form.

    """
    content = source.read_blob(parse_digest(layer.digest), _LIMIT_BYTES)
    if layer.media_type == _PAYLOAD_TYPE:
        made = _decoded((layer.annotations or {}).get(_ANNOTATION, ""))
        return _Claim(content, made) if _names(content, digest, name) else None
    bundle = read_bundle(content)
    for subject in bundle.subjects:
        is_for_name = name is None or subject.name.partition("@")[0] == name
        if is_for_name and subject.digest.get("sha256") == encoded(digest):
            return _Claim(bundle.message, bundle.signature)
    return None


def _layers(source: Repository, digest: Digest) -> Iterator[Descriptor]:
    """Yield the layers that may be signatures."""
    for layer in _all_layers(source, digest):
        if layer.media_type == _PAYLOAD_TYPE or layer.media_type.startswith(MEDIA_TYPE_PREFIX):
            yield layer


def _all_layers(source: Repository, digest: Digest) -> Iterator[Descriptor]:
    yield from _layers_of(source, f"{digest.replace(':', '-')}.sig")
    found = [one for one in referrers(source, digest) if _may_sign(one.artifact_type)]
    for artifact in found[:_MOST]:
        yield from _layers_of(source, artifact.digest)


def _may_sign(artifact_type: str) -> bool:
    known = {_ARTIFACT_TYPE, _PAYLOAD_TYPE, _EMPTY_TYPE}
    return artifact_type in known or artifact_type.startswith(MEDIA_TYPE_PREFIX)


def _layers_of(source: Repository, reference: str) -> list[Descriptor]:
    try:
        fetched = source.get_manifest(reference)
        return decode(fetched.content, Manifest, f"signatures {reference[:100]}").layers
    except (UnknownToRegistryError, InvalidArgumentError):
        return []


def _names(payload: bytes, digest: Digest, name: str | None) -> bool:
    """Whether a payload is about this image."""
    try:
        document = convert(strict_json.loads(payload, _LIMIT_BYTES), _Payload)
    except (strict_json.InvalidJsonError, msgspec.ValidationError):
        return False
    critical = document.critical
    is_for_name = name is None or critical.identity.name.partition("@")[0] == name
    return critical.type == _KIND and critical.image.digest == digest and is_for_name


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidArgumentError("signature: not base64") from exc
