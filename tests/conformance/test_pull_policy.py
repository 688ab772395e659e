"""The policy of pulls as users meet it: docker, docker-py and cais, against Debian's registry.

The daemon reads ``/etc/cais/policy.toml`` of its own mount namespace, which gets one here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

from cais.spec.digest import digest_of
from cais.spec.image import OCI_INDEX, OCI_MANIFEST
from cais.spec.platform import host_platform
from cais.testing.archives import busybox_archive, docker_archive, tar_of
from cais.testing.cosign import ANNOTATION, BUNDLE, PAYLOAD, Signer, bundle_of, payload_of
from cais.testing.daemon import TestDaemon
from cais.testing.docker_registry import DockerRegistry
from cais.testing.registry_documents import send_documents
from cais.testing.registry_shelf import describe
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT = 5059
REGISTRY = f"localhost:{PORT}"


class Host:
    """A daemon with a policy, and a registry beside it."""

    def __init__(self, daemon: TestDaemon, policy: Path) -> None:
        self.daemon = daemon
        self._policy = policy

    def rule(self, text: str) -> None:
        """Replace the policy by one rule for the registry."""
        self._policy.write_text(f'[[rule]]\nscope = "{REGISTRY}"\n{text}\n')

    def push(self, path: str, content: bytes = b"", *, archive: bytes = b"") -> str:
        """Put an image into the registry and forget it here; return its digest there."""
        self._policy.unlink(missing_ok=True)
        name = f"{REGISTRY}/{path}"
        archive = archive or docker_archive(name, [tar_of({"f": content or path.encode()})])
        self.daemon.docker("load", stdin=archive)
        said = self.daemon.docker("push", name).stdout
        self.daemon.docker("rmi", "-f", name)
        return said.rpartition("digest: ")[2].split()[0]

    def send(self, repository: str, blobs: list[bytes], *manifests: tuple[str, str, str]) -> None:
        """Put documents into a repository: blobs, and (tag, media type, text)."""
        texts = [blob.decode() for blob in blobs]
        send_documents(self.daemon, f"{REGISTRY}/{repository}", texts, manifests)

    def kept(self) -> set[str]:
        """Return every blob, layer and name that is here."""
        root = self.daemon.data_root
        blobs = {path.name for path in (root / "content" / "blobs").rglob("*") if path.is_file()}
        entries = [path.name for path in (root / "snapshots").iterdir()]
        layers = {f"layer {name}" for name in entries if name.isdecimal()}  # no litter
        names = self.daemon.docker("images", "-a", "--digests", "--no-trunc").stdout.splitlines()
        return blobs | layers | {" ".join(line.split()[:3]) for line in names}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with (
        tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as short,
        TestDaemon(Path(short)) as daemon,
        DockerRegistry(daemon, tmp_path_factory.mktemp("registry"), port=PORT),
    ):
        upper, work, policy = (tmp_path_factory.mktemp(name) for name in ("upper", "work", "etc"))
        (upper / "cais").mkdir()
        layers = f"lowerdir=/etc,upperdir={upper},workdir={work}"
        daemon.run_inside(["mount", "-t", "overlay", "etc", "-o", layers, "/etc"])
        # What lies below an overlay may not be changed while it is mounted.
        daemon.run_inside(["mount", "--bind", str(policy), "/etc/cais"])
        made = Host(daemon, policy / "policy.toml")
        made.push("warm/up:1")
        yield made


def by_docker(host: Host, name: str) -> str:
    result = host.daemon.docker("pull", name, check=False)
    assert result.returncode in (0, 1)
    return result.stderr


def by_cais(host: Host, name: str) -> str:
    result = host.daemon.cais("pull", name, check=False)
    assert result.returncode in (0, 1)
    return result.stderr


def by_docker_py(host: Host, name: str) -> str:
    client = docker.APIClient(base_url=host.daemon.host, timeout=PATIENCE_S)
    with contextlib.closing(client):
        try:
            client.pull(name)
        except docker.errors.APIError as error:
            return str(error.explanation) if error.status_code == 403 else repr(error)
    return ""


def by_run(host: Host, name: str) -> str:
    result = host.daemon.docker("run", "--rm", "--network", "none", name, "true", check=False)
    assert result.returncode in (0, 125)
    return "" if result.returncode == 0 else result.stderr


def by_create(host: Host, name: str) -> str:
    return host.daemon.docker("create", name, "true", check=False).stderr


CLIENTS = [by_docker, by_cais, by_docker_py, by_run, by_create]


def is_refused(host: Host, pull: Callable[[Host, str], str], name: str, why: str) -> None:
    before = host.kept()
    said = pull(host, name)
    assert f"pull of {name} refused by policy /etc/cais/policy.toml, rule " in said
    assert why in said
    assert host.kept() == before


@pytest.mark.parametrize("pull", CLIENTS)
def test_what_is_denied_stays_away(host: Host, pull: Callable[[Host, str], str]) -> None:
    digest = host.push(f"denied/{pull.__name__}:1")
    host.rule('require = "deny"')
    for name in (f"denied/{pull.__name__}:1", f"denied/{pull.__name__}@{digest}"):
        is_refused(host, pull, f"{REGISTRY}/{name}", f"rule '{REGISTRY}': denied")


@pytest.mark.parametrize("pull", [by_docker, by_docker_py, by_run])
def test_a_pinned_image_comes_and_no_other(host: Host, pull: Callable[[Host, str], str]) -> None:
    path = f"pinned/{pull.__name__}"
    good = host.push(f"{path}:good", archive=busybox_archive(f"{REGISTRY}/{path}:good"))
    other = host.push(f"{path}:other")
    host.rule(f'require = "digest"\ndigests = ["{good}"]')
    is_refused(host, pull, f"{REGISTRY}/{path}:other", f"{other} is not one of its digests")
    is_refused(host, pull, f"{REGISTRY}/{path}@{other}", "is not one of its digests")
    assert "refused" not in pull(host, f"{REGISTRY}/{path}:good")
    host.daemon.docker("image", "inspect", f"{REGISTRY}/{path}:good")
    forget(host, f"{REGISTRY}/{path}:good")


def test_what_has_to_be_named_by_digest(host: Host) -> None:
    digest = host.push("exact:1")
    host.rule('require = "digest"')
    is_refused(host, by_docker, f"{REGISTRY}/exact:1", "has to be pulled by digest")
    assert not by_docker(host, f"{REGISTRY}/exact@{digest}")
    forget(host, f"{REGISTRY}/exact@{digest}")


def simple(host: Host, signer: Signer, repository: str, digest: str) -> None:
    payload = payload_of(digest, f"{REGISTRY}/{repository}")
    made = base64.b64encode(signer.sign(payload)).decode()
    layer = describe(payload, PAYLOAD, annotations={ANNOTATION: made})
    tag = digest.replace(":", "-")
    artifact = manifest_of(layer)
    host.send(repository, [payload, b"{}"], (f"{tag}.sig", OCI_MANIFEST, artifact))


def bundled(host: Host, signer: Signer, repository: str, digest: str) -> None:
    """As a referrer, which Debian's registry finds by the tag only."""
    bundle = json.dumps(bundle_of(signer, digest)).encode()
    artifact = manifest_of(describe(bundle, BUNDLE), artifactType=BUNDLE)
    entry = describe(artifact.encode(), OCI_MANIFEST, artifactType=BUNDLE)
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    place = (entry["digest"], OCI_MANIFEST, artifact)
    host.send(repository, [bundle, b"{}"], place, (digest.replace(":", "-"), OCI_INDEX, index))


def manifest_of(layer: dict[str, Any], **more: str) -> str:
    config = describe(b"{}", "application/vnd.oci.image.config.v1+json")
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], **more}
    )


@pytest.mark.parametrize(
    ("sign", "pull"),
    [(simple, by_docker), (simple, by_run), (bundled, by_docker), (bundled, by_docker_py)],
)
def test_a_signed_image_comes_and_no_other(
    host: Host,
    tmp_path: Path,
    pull: Callable[[Host, str], str],
    sign: Callable[[Host, Signer, str, str], None],
) -> None:
    path = f"signed/{sign.__name__}-{pull.__name__}"
    name = f"{REGISTRY}/{path}:1"
    digest = host.push(f"{path}:1", archive=busybox_archive(name))
    signer, stranger = Signer(tmp_path), Signer(tmp_path, "ed25519")
    host.rule(f'require = "signature"\nkeys = ["{signer.path}"]')
    why = f"{digest} has no valid signature by any of its keys"
    is_refused(host, pull, name, why)
    sign(host, stranger, path, digest)
    is_refused(host, pull, name, why)
    sign(host, signer, path, digest)
    assert "refused" not in pull(host, name)
    host.daemon.docker("image", "inspect", name)
    forget(host, name)


def test_an_index_is_signed_as_a_whole(host: Host, tmp_path: Path) -> None:
    ours, theirs = (host.push(f"index:{which}") for which in ("ours", "theirs"))
    machine = host_platform()
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform}
        for digest, platform in (
            (theirs, {"os": "plan9", "architecture": "mips"}),
            (ours, {"os": machine.os, "architecture": machine.architecture}),
        )
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    host.send("index", [], ("all", OCI_INDEX, index))
    digest, signer = digest_of(index.encode()), Signer(tmp_path)
    host.rule(f'require = "signature"\nkeys = ["{signer.path}"]')
    for name in (f"{REGISTRY}/index:all", f"{REGISTRY}/index@{digest}"):
        is_refused(host, by_docker, name, f"{digest} has no valid signature")
    simple(host, signer, "index", digest)
    assert not by_docker(host, f"{REGISTRY}/index:all")
    forget(host, f"{REGISTRY}/index:all")
    # What is in a signed index is not signed by itself.
    is_refused(host, by_docker, f"{REGISTRY}/index:ours", f"{ours} has no valid signature")


def test_loading_is_no_pull(host: Host) -> None:
    """Decided in adr/0018: who may load is root here already."""
    name = f"{REGISTRY}/loaded:1"
    host.rule('require = "deny"')
    host.daemon.docker("load", stdin=busybox_archive(name))
    assert not by_run(host, name)
    forget(host, name)
    content = tar_of({"f": b"imported"})
    host.daemon.docker("import", "-", f"{REGISTRY}/imported:1", stdin=content)
    forget(host, f"{REGISTRY}/imported:1")


def test_a_policy_that_cannot_be_read_allows_nothing(host: Host) -> None:
    host.push("unread:1")
    host.rule("require = 'perhaps'")
    before = host.kept()
    for pull in (by_docker, by_run):
        said = pull(host, f"{REGISTRY}/unread:1")
        assert "policy /etc/cais/policy.toml: Invalid enum value 'perhaps'" in said
    assert host.kept() == before


def forget(host: Host, name: str) -> None:
    for container in host.daemon.docker("ps", "-aq").stdout.split():
        host.daemon.docker("rm", "-f", container)
    host.daemon.docker("rmi", "-f", name)
