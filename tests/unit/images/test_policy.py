"""The policy of pulls: scopes, pins, and signatures in cosign's format."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from cais.errors import InvalidArgumentError
from cais.images.downloads import Downloads
from cais.images.policy import Policy, RefusedByPolicyError, Rule, load_policy
from cais.images.pulling import Pull
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.repository import Repository
from cais.spec.image import OCI_INDEX, OCI_MANIFEST
from cais.spec.reference import parse_reference
from cais.testing.image_store import left_over, open_image_store
from cais.testing.registry_shelf import PATH, Shelf, describe
from cais.testing.scripted_registry import serving, transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.images.store import ImageStore

NAME = f"example.com/{PATH}"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path / "store") as opened:
        yield opened


class Signer:
    """A key pair, whose public half is a file."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.path = directory / f"{kind}.pub"
        if kind == "ecdsa":
            curve = ec.generate_private_key(ec.SECP256R1())
            self.sign: Callable[[bytes], bytes] = lambda text: curve.sign(
                text, ec.ECDSA(hashes.SHA256())
            )
            self._write(curve.public_key())
        elif kind == "rsa":
            number = rsa.generate_private_key(65537, 2048)
            self.sign = lambda text: number.sign(text, padding.PKCS1v15(), hashes.SHA256())
            self._write(number.public_key())
        else:
            edwards = ed25519.Ed25519PrivateKey.generate()
            self.sign = edwards.sign
            self._write(edwards.public_key())

    def _write(self, public: Any) -> None:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "ecdsa")


def payload_of(digest: str, name: str = NAME, **more: Any) -> bytes:
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**critical, **more}, "optional": None}).encode()


def put_signatures(shelf: Shelf, signed: list[tuple[bytes, bytes]], *, referrer: bool) -> None:
    """Put signatures where cosign does: under a tag, or as an artifact that refers to the image."""
    layers = []
    for payload, made in signed:
        encoded = base64.b64encode(made).decode()
        layer = describe(payload, PAYLOAD_TYPE, annotations={ANNOTATION: encoded})
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
    payload = payload_of(digest_in(shelf))
    put_signatures(shelf, [(payload, signer.sign(payload))], referrer=referrer)
    pull(store, shelf, signed_by(signer))
    assert store.resolve(NAME)


def test_openssl_agrees(store: ImageStore, tmp_path: Path) -> None:
    """A signature, and a key, by another program."""
    shelf = Shelf()
    private, public, text = (tmp_path / name for name in ("key", "key.pub", "payload"))
    text.write_bytes(payload_of(digest_in(shelf)))
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
    right = payload_of(digest_in(shelf))
    elsewhere = payload_of(f"sha256:{'0' * 64}")
    kind = payload_of(digest_in(shelf), type="atomic container signature")
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
    payload = payload_of(digest_in(shelf))
    put_signatures(shelf, [wrong, (payload, signer.sign(payload))], referrer=False)
    pull(store, shelf, signed_by(signer))


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
    payload = payload_of(digest_in(shelf))
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
