"""``cais manifest inspect`` beside docker's: byte by byte, on Debian's registry and on ours.

What docker prints is also kept here, for machines with another docker.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cais.spec.digest import digest_of
from cais.spec.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from cais.testing.cais_registry import CaisRegistry
from cais.testing.daemon import BIN
from cais.testing.docker_registry import DockerRegistry
from cais.testing.registry_documents import send_documents
from cais.testing.registry_shelf import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.daemon import TestDaemon

PORT = 5068
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = json.dumps({"os": "linux", "architecture": "arm", "variant": "v7", "config": {}})
LAYER = "a layer"


def an_image(kind: str, config_type: str, layer_type: str) -> str:
    """Return a manifest with something of everything that JSON is written in two ways."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": describe(CONFIG.encode(), config_type),
            "layers": [describe(LAYER.encode(), layer_type, urls=[])],
            "annotations": {"x": "a < b > c & d", "ü": "é"},
        },
        ensure_ascii=False,
    )


DOCKERS = an_image(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
OCIS = an_image(OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)


def a_list(kind: str, content: str, manifest_type: str) -> str:
    platforms = (
        {"os": "linux", "architecture": "amd64"},
        {"variant": "v8", "os": "linux", "architecture": "arm64", "os.version": "1 < 2"},
        {"os": "unknown", "architecture": "unknown"},
    )
    entries = [
        describe(content.encode(), manifest_type, platform=one, annotations={"a": "b"})
        for one in platforms
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries})


DOCUMENTS = {
    "docker": (DOCKER_MANIFEST, DOCKERS),
    "oci": (OCI_MANIFEST, OCIS),
    "list": (DOCKER_INDEX, a_list(DOCKER_INDEX, DOCKERS, DOCKER_MANIFEST)),
    "index": (OCI_INDEX, a_list(OCI_INDEX, OCIS, OCI_MANIFEST)),
}


@pytest.fixture(scope="module")
def registries(
    daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The name of each registry, with the documents under some/box."""
    directory = tmp_path_factory.mktemp("registries")
    with (
        CaisRegistry(daemon, directory / "ours") as ours,
        DockerRegistry(daemon, directory, port=PORT) as peer,
    ):
        for name in (ours.name, peer.name):
            manifests = [(tag, *document) for tag, document in DOCUMENTS.items()]
            send_documents(daemon, f"{name}/some/box", (CONFIG, LAYER), manifests)
        yield {"cais": ours.name, "docker": peer.name}


def inspect(daemon: TestDaemon, program: str, *arguments: str) -> tuple[int, str, str]:
    network = daemon.enter_namespaces[:4]  # the registries are there; of files the client's own
    experimental = ("env", "DOCKER_CLI_EXPERIMENTAL=enabled")
    command = [*network, *experimental, program, "manifest", "inspect", *arguments]
    done = daemon.run_client(command, check=False)
    return done.returncode, done.stdout, done.stderr


CAIS = str(BIN / "cais")


@pytest.mark.parametrize("verbose", [(), ("-v",)], ids=["plain", "verbose"])
@pytest.mark.parametrize("tag", list(DOCUMENTS))
@pytest.mark.parametrize("which", ["cais", "docker"])
def test_the_same_as_docker(
    daemon: TestDaemon,
    registries: dict[str, str],
    docker_major: int,
    which: str,
    tag: str,
    verbose: tuple[str, ...],
) -> None:
    name = f"{registries[which]}/some/box:{tag}"
    status, said, failure = inspect(daemon, CAIS, "--insecure", *verbose, name)
    assert (status, failure) == (0, "")
    assert json.loads(said)
    if docker_major >= 28:  # older ones print less
        assert inspect(daemon, "docker", "--insecure", *verbose, name) == (0, said, "")


def test_what_docker_prints(daemon: TestDaemon, registries: dict[str, str]) -> None:
    name = f"{registries['docker']}/some/box:index"
    _, said, _ = inspect(daemon, CAIS, "--insecure", name)
    assert said.startswith(
        "{\n"
        '   "schemaVersion": 2,\n'
        '   "mediaType": "application/vnd.oci.image.index.v1+json",\n'
        '   "manifests": [\n'
        "      {\n"
        '         "mediaType": "application/vnd.oci.image.manifest.v1+json",\n'
        f'         "size": {len(OCIS.encode())},\n'
        f'         "digest": "{digest_of(OCIS.encode())}",\n'
        '         "platform": {\n'
        '            "architecture": "amd64",\n'
        '            "os": "linux"\n'
    )
    assert '"os.version": "1 \\u003c 2",\n            "variant": "v8"' in said
    _, said, _ = inspect(
        daemon, CAIS, "--insecure", "-v", f"{registries['docker']}/some/box:docker"
    )
    assert said.startswith(
        "{\n"
        f'\t"Ref": "{registries["docker"]}/some/box:docker",\n'
        '\t"Descriptor": {\n'
        '\t\t"mediaType": "application/vnd.docker.distribution.manifest.v2+json",\n'
        f'\t\t"digest": "{digest_of(DOCKERS.encode())}",\n'
        f'\t\t"size": {len(DOCKERS.encode())},\n'
        '\t\t"platform": {\n'
        '\t\t\t"architecture": "arm",\n'
        '\t\t\t"os": "linux",\n'
        '\t\t\t"variant": "v7"\n'
        "\t\t}\n"
        "\t},\n"
        '\t"Raw": "'
    )
    assert '\t"SchemaV2Manifest": {\n\t\t"schemaVersion": 2,' in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{}/some/box:none",), "no such manifest: {}/some/box:none"),
        (("{}/nowhere",), "no such manifest: {}/nowhere:latest"),
        (("UPPER",), "must be lowercase"),
        (("--insecure", "localhost:1/x"), "failed to configure transport: error pinging v2"),
        (("a", "b", "c"), "requires at most 2 arguments"),
        ((), "requires at least 1 argument"),
        (("list", "{}/some/box:oci"), "manifest list list: cais keeps no lists of its own"),
    ],
)
def test_refusals(
    daemon: TestDaemon, registries: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    place = registries["docker"]
    status, shown, failure = inspect(daemon, CAIS, *(one.format(place) for one in arguments))
    assert (status, shown) == (1, "")
    assert said.format(place) in failure
