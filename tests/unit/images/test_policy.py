"""The policy of pulls: scopes, pins, and signatures in cosign's format."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa

from cais.errors import InvalidArgumentError
from cais.images.downloads import Downloads
from cais.images.policy import Policy, RefusedByPolicyError, Rule, load_policy
from cais.images.pulling import Pull
from cais.images.signature_bundles import pre_authentication
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.repository import Repository
from cais.spec.image import OCI_INDEX, OCI_MANIFEST
from cais.spec.reference import parse_reference
from cais.testing.cosign import (
    ANNOTATION,
    BUNDLE,
    IN_TOTO,
    PAYLOAD,
    Signer,
    bundle_of,
    payload_of,
)
from cais.testing.image_store import left_over, open_image_store
from cais.testing.registry_shelf import PATH, Shelf, describe
from cais.testing.scripted_registry import serving, transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.images.store import ImageStore

NAME = f"example.com/{PATH}"
ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "ecdsa")


def sign(
    signer: Signer, shelf: Shelf, listed_as: str = BUNDLE, parts: Any = (), **other: Any
) -> None:
    """Put a bundle about the image ``latest``; ``other`` spoils it, then ``parts``."""
    bundle = bundle_of(signer, other.pop("digest", digest_in(shelf)), **other) | dict(parts)
    put_bundle(shelf, shelf.manifests["latest"][1], json.dumps(bundle).encode(), listed_as)


def put_bundle(shelf: Shelf, subject: bytes, bundle: bytes, listed_as: str) -> None:
    layer = describe(bundle, BUNDLE)
    shelf.blobs[layer["digest"]] = bundle
    artifact = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": BUNDLE,
        "config": describe(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [layer],
        "subject": describe(subject, OCI_MANIFEST),
    }
    entry = describe(json.dumps(artifact).encode(), OCI_MANIFEST, artifactType=listed_as)
    shelf.add("unused", OCI_MANIFEST, artifact)
    tag = describe(subject, "")["digest"].replace(":", "-")
    entries = json.loads(shelf.manifests[tag][1])["manifests"] if tag in shelf.manifests else []
    shelf.add(tag, OCI_INDEX, {"schemaVersion": 2, "manifests": [*entries, entry]})


def put_signatures(shelf: Shelf, signed: list[tuple[bytes, bytes]], *, referrer: bool) -> None:
    """Put signatures where cosign does: under a tag, or as an artifact that refers to the image."""
    layers = []
    for payload, made in signed:
        encoded = base64.b64encode(made).decode()
        layer = describe(payload, PAYLOAD, annotations={ANNOTATION: encoded})
        shelf.blobs[layer["digest"]] = payload
        layers.append(layer)
    image = shelf.manifests["latest"][1]
    artifact: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    tag = describe(image, "")["digest"].replace(":", "-")
    if not referrer:
        shelf.add(f"{tag}.sig", OCI_MANIFEST, artifact)
        return
    artifact |= {"artifactType": ARTIFACT_TYPE, "subject": describe(image, OCI_MANIFEST)}
    entry = describe(json.dumps(artifact).encode(), OCI_MANIFEST, artifactType=ARTIFACT_TYPE)
    shelf.add("unused", OCI_MANIFEST, artifact)
    shelf.add(tag, OCI_INDEX, {"schemaVersion": 2, "manifests": [entry]})


def digest_in(shelf: Shelf) -> str:
    digest: str = describe(shelf.manifests["latest"][1], "")["digest"]
    return digest


def pull(store: ImageStore, shelf: Shelf, policy: Policy, name: str = NAME) -> list[str]:
    """Pull an image, with a policy; return what the registry was asked for."""
    cancel = Cancel()
    with serving(shelf.answer) as server, transport() as carrier:
        auth = Authenticator(carrier, server.origin, ANONYMOUS)
        source = Repository(carrier, server.origin, PATH, auth, cancel)
        wanted = parse_reference(name).with_default_tag()
        one = Pull(
            store, Downloads(store.content), source, wanted,
            platform=None, policy=policy, report=lambda _: None, cancel=cancel,
        )  # fmt: skip
        try:
            one.run()
        except RefusedByPolicyError:
            parts = digest_in(shelf), *(layer["digest"] for layer in shelf.manifest()["layers"])
            asked = [target.rpartition("/")[2] for _, target, _ in server.seen]
            assert not {*parts[1:], shelf.manifest()["config"]["digest"]}.intersection(asked)
            raise
        return [target for _, target, _ in server.seen]


def signed_by(signer: Signer, **fields: Any) -> Policy:
    rule = Rule("example.com/team", "signature", keys=[str(signer.path)], **fields)
    return Policy("policy.toml", [rule])


@pytest.mark.parametrize("referrer", [False, True])
@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_a_signed_image_comes(
    store: ImageStore, tmp_path: Path, kind: str, *, referrer: bool
) -> None:
    shelf, signer = Shelf(), Signer(tmp_path, kind)
    payload = payload_of(digest_in(shelf), NAME)
    put_signatures(shelf, [(payload, signer.sign(payload))], referrer=referrer)
    pull(store, shelf, signed_by(signer))
    assert store.resolve(NAME)


def test_openssl_agrees(store: ImageStore, tmp_path: Path) -> None:
    """A signature, and a key, by another program."""
    shelf = Shelf()
    private, public, text = (tmp_path / name for name in ("key", "key.pub", "payload"))
    text.write_bytes(payload_of(digest_in(shelf), NAME))
    for command in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private],
        ["ec", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", private, text], check=True, capture_output=True
    ).stdout
    put_signatures(shelf, [(text.read_bytes(), made)], referrer=False)
    rule = Rule("example.com", "signature", keys=[str(public)])
    pull(store, shelf, Policy("policy.toml", [rule]))
    assert store.resolve(NAME)


def broken(signer: Signer, shelf: Shelf, other: Signer) -> dict[str, tuple[bytes, bytes]]:
    right = payload_of(digest_in(shelf), NAME)
    elsewhere = payload_of(f"sha256:{'0' * 64}", NAME)
    kind = payload_of(digest_in(shelf), NAME, type="atomic container signature")
    return {
        "by another key": (right, other.sign(right)),
        "of another image": (elsewhere, signer.sign(elsewhere)),
        "of another kind": (kind, signer.sign(kind)),
        "of other bytes": (right + b" ", signer.sign(right)),
        "no signature": (right, b"nothing"),
        "no payload": (b"{}", signer.sign(b"{}")),
        "two meanings": (
            b'{"critical":{},' + right[1:],
            signer.sign(b'{"critical":{},' + right[1:]),
        ),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("by another key", "of another image", "of another kind", "of other bytes"),
        *("no signature", "no payload", "two meanings"),
    ],
)
def test_what_is_no_signature(store: ImageStore, tmp_path: Path, signer: Signer, case: str) -> None:
    """A wrong one does not count; and does not hide a right one beside it."""
    shelf = Shelf()
    wrong = broken(signer, shelf, Signer(tmp_path, "ed25519"))[case]
    put_signatures(shelf, [wrong], referrer=False)
    with pytest.raises(
        RefusedByPolicyError,
        match=r"refused by policy policy.toml, rule 'example.com/team': sha256:\w+ has no valid",
    ):
        pull(store, shelf, signed_by(signer))
    assert not left_over(store)
    payload = payload_of(digest_in(shelf), NAME)
    put_signatures(shelf, [wrong, (payload, signer.sign(payload))], referrer=False)
    pull(store, shelf, signed_by(signer))


@pytest.mark.parametrize("kind", ["ecdsa", "ecdsa-384", "rsa", "ed25519"])
def test_an_image_signed_with_a_bundle_comes(store: ImageStore, tmp_path: Path, kind: str) -> None:
    shelf, signer = Shelf(), Signer(tmp_path, kind)
    sign(signer, shelf)
    pull(store, shelf, signed_by(signer))
    assert store.resolve(NAME)


def test_what_dsse_signs_is_as_its_specification_has_it() -> None:
    message = pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_bundle_listed_as_nothing_in_particular(store: ImageStore, signer: Signer) -> None:
    """As by some versions of cosign: sigstore/cosign issue 4422."""
    shelf = Shelf()
    sign(signer, shelf, listed_as="application/vnd.oci.empty.v1+json")
    pull(store, shelf, signed_by(signer))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"digest": f"sha256:{'0' * 64}"}, ""),
        ({"message": b"the payload alone"}, ""),
        ({"kind": "https://in-toto.io/Statement/v9"}, "bundle of predicate 'https://sigstore"),
        ({"predicate": "https://slsa.dev/provenance/v1"}, "bundle of predicate 'https://slsa.dev"),
        ({"payload_type": "text/plain"}, "bundle with a payload of 'text/plain'"),
        ({"signatures": 0}, ""),
        ({"signatures": 2}, ""),
        ({"version": "application/x"}, "bundle of type 'application/x'"),
        ({"parts": {"dsseEnvelope": None}}, "bundle without a DSSE envelope"),
        ({"parts": {"dsseEnvelope": "x"}}, ""),
        (
            {"parts": {"dsseEnvelope": {"payload": "?", "payloadType": IN_TOTO, "signatures": []}}},
            "",
        ),
    ],
)
def test_bundles_that_are_no_signature(
    store: ImageStore, signer: Signer, other: dict[str, Any], said: str
) -> None:
    """None counts, none hides a good one, and what is not read is named."""
    shelf = Shelf()
    sign(signer, shelf, **other)
    end = rf"by any of its keys \(there is a {said}" if said else r"by any of its keys$"
    with pytest.raises(RefusedByPolicyError, match=end):
        pull(store, shelf, signed_by(signer))
    assert not left_over(store)
    sign(signer, shelf)
    pull(store, shelf, signed_by(signer))


def test_a_bundle_by_another_key(store: ImageStore, tmp_path: Path, signer: Signer) -> None:
    shelf = Shelf()
    sign(Signer(tmp_path, "ed25519"), shelf)
    with pytest.raises(RefusedByPolicyError, match=r"keys$"):
        pull(store, shelf, signed_by(signer))


def test_a_bundle_for_another_name(store: ImageStore, signer: Signer) -> None:
    """cosign writes no name into a bundle; who wants one does not take such bundles."""
    shelf = Shelf()
    sign(signer, shelf)
    with pytest.raises(RefusedByPolicyError):
        pull(store, shelf, signed_by(signer, match_name=True))
    sign(signer, shelf, name=NAME)
    pull(store, shelf, signed_by(signer, match_name=True))


def test_an_unsigned_image_is_not_fetched(store: ImageStore, signer: Signer) -> None:
    with pytest.raises(RefusedByPolicyError):
        pull(store, Shelf(), signed_by(signer))
    assert not left_over(store)


def test_signed_for_another_name(store: ImageStore, signer: Signer) -> None:
    shelf = Shelf()
    payload = payload_of(digest_in(shelf), "example.com/team/other")
    put_signatures(shelf, [(payload, signer.sign(payload))], referrer=False)
    with pytest.raises(RefusedByPolicyError):
        pull(store, shelf, signed_by(signer, match_name=True))
    pull(store, shelf, signed_by(signer))


def test_any_of_several_keys_will_do(store: ImageStore, tmp_path: Path, signer: Signer) -> None:
    shelf, other = Shelf(), Signer(tmp_path, "rsa")
    payload = payload_of(digest_in(shelf), NAME)
    put_signatures(shelf, [(payload, signer.sign(payload))], referrer=False)
    rule = Rule("example.com", "signature", keys=[str(other.path), str(signer.path)])
    pull(store, shelf, Policy("policy.toml", [rule]))


def test_pinned_digests(store: ImageStore) -> None:
    shelf = Shelf()
    pinned = Policy("p", [Rule(NAME, "digest", digests=[digest_in(shelf)])])
    pull(store, shelf, pinned)
    shelf.add("latest", OCI_MANIFEST, {**shelf.manifest(), "annotations": {"a": "b"}})
    with pytest.raises(RefusedByPolicyError, match="is not one of its digests"):
        pull(store, shelf, pinned)


def test_what_has_to_be_named_by_digest(store: ImageStore) -> None:
    shelf, policy = Shelf(), Policy("p", [Rule("example.com", "digest")])
    with pytest.raises(RefusedByPolicyError, match="has to be pulled by digest"):
        pull(store, shelf, policy)
    pull(store, shelf, policy, f"{NAME}@{digest_in(shelf)}")


def test_the_longest_scope_counts(store: ImageStore) -> None:
    rules = [Rule("example.com", "deny"), Rule("example.com/team", "allow")]
    pull(store, Shelf(), Policy("p", rules))
    with pytest.raises(RefusedByPolicyError, match=r"rule 'example.com/team/box': denied"):
        pull(store, Shelf(), Policy("p", [*rules, Rule(NAME, "deny")]))


@pytest.mark.parametrize("scope", ["example.com/tea", "example.co", "example.com/team/box/x"])
def test_scopes_end_between_names(store: ImageStore, scope: str) -> None:
    pull(store, Shelf(), Policy("p", [Rule(scope, "deny")]))


def test_what_no_rule_covers(store: ImageStore) -> None:
    with pytest.raises(RefusedByPolicyError, match="rule 'default': no rule allows it"):
        pull(store, Shelf(), Policy("p", [], "deny"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default = 'perhaps'", "Invalid enum value"),
        ("rules = []", "unknown field"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'signature'", "belong together"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'allow'\nkeys = ['x']", "belong together"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'signature'\nkeys = ['/absent']", "No such file"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'deny'\ndigests = ['sha256:0']", "without a required"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'digest'\ndigests = ['sha256:0']", "invalid"),
        ("[[rule]]\nscope = 'debian'\nrequire = 'deny'", "did you mean 'docker.io/library/debian'"),
        ("[[rule]]\nscope = 'docker.io/debian'\nrequire = 'deny'", "did you mean"),
        ("[[rule]]\nscope = 'a.b'\nrequire = 'deny'\n" * 2, "the same scope"),
        ("[[rule", "policy"),
    ],
)
def test_a_file_that_cannot_be_read_allows_nothing(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgumentError, match=message):
        load_policy(path)


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    key = dsa.generate_private_key(1024).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path = tmp_path / "dsa.pub"
    path.write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(InvalidArgumentError, match="neither ECDSA, RSA nor Ed25519"):
        Policy("p", [Rule("a.b", "signature", keys=[str(path)])])


def test_without_a_file_all_is_allowed(store: ImageStore, tmp_path: Path) -> None:
    pull(store, Shelf(), load_policy(tmp_path / "absent.toml"))
