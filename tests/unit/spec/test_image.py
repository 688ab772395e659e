"""Image documents as other tools write them."""

import json

import pytest

from cais.spec.image import (
    ContainerConfig,
    ImageConfig,
    Index,
    InvalidImageError,
    Manifest,
    RootFs,
    decode,
    decode_config,
    encode,
)

DIGEST = f"sha256:{'a' * 64}"


def test_a_configuration_of_docker() -> None:
    """Fields nobody needs, null for unset slices, and Go's names are all in real files."""
    text = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "os.version": "10",
            "created": "2026-01-01T00:00:00Z",
            "container": "abc", "docker_version": "28.2", "container_config": {"Hostname": "x"},
            "config": {
                "Hostname": "", "AttachStdin": False, "Env": ["A=b"], "Cmd": None, "Image": "",
                "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/w",
                "Entrypoint": ["/e"], "OnBuild": None, "Labels": {"k": "v"}, "StopSignal": "SIGINT",
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Retries": 3},
            },
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
            "history": [{"created_by": "x", "empty_layer": True, "author": None}],
        }
    ).encode()  # fmt: skip
    config = decode_config(text)
    assert config.os_version == "10"
    assert config.rootfs.diff_ids == [DIGEST]
    assert config.history is not None
    assert config.history[0].empty_layer
    inner = config.config
    assert inner is not None
    assert (inner.env, inner.cmd, inner.entrypoint) == (["A=b"], None, ["/e"])
    assert inner.healthcheck is not None
    assert inner.healthcheck.interval == 5
    assert inner.labels == {"k": "v"}


def test_what_we_write_reads_back_and_is_always_the_same() -> None:
    config = ImageConfig(
        architecture="amd64",
        os="linux",
        config=ContainerConfig(cmd=["sh"], exposed_ports={"80/tcp": {}}, working_dir="/"),
        rootfs=RootFs("layers", [DIGEST]),
    )
    assert decode_config(encode(config)) == config
    assert json.loads(encode(config)) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    assert encode(config) == encode(decode_config(encode(config)))


def test_manifests_and_indexes_use_the_specifications_names() -> None:
    descriptor = {"mediaType": "x", "digest": DIGEST, "size": 3, "annotations": {"a": "b"}}
    manifest = {"schemaVersion": 2, "mediaType": "m", "config": descriptor, "layers": [descriptor]}
    parsed = decode(json.dumps(manifest).encode(), Manifest, "manifest")
    assert json.loads(encode(parsed)) == manifest
    index = {"schemaVersion": 2, "manifests": [descriptor | {"platform": {"os": "linux"}}]}
    assert json.loads(encode(decode(json.dumps(index).encode(), Index, "index"))) == index


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"{}", b'{"rootfs":null}', b'{"rootfs":{"type":"other"}}',
     b'{"rootfs":{"type":"layers"},"rootfs":{"type":"layers"}}',
     b'{"rootfs":{"type":"layers"},"config":{"Cmd":"sh"}}',
     b'{"rootfs":{"type":"layers"},"history":{"x":1}}', b'{"a":' * 100_000],
)  # fmt: skip
def test_faults_name_the_document(text: bytes) -> None:
    with pytest.raises(InvalidImageError, match=r"^configuration x: "):
        decode_config(text, "configuration x")
