"""docker-py, ``from_env()``, as programs use it."""

import io
import socket
from collections.abc import Iterator

import docker
import docker.errors
import pytest

from cais.testing.archives import busybox_archive
from cais.testing.daemon import TestDaemon


@pytest.fixture
def client(daemon: TestDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    made = docker.from_env()
    yield made
    made.close()


def test_ping_version_and_info(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["OSType"] == "linux"


def test_run_returns_output(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"


def test_a_failing_run_raises(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"why\n"


def test_missing_things_raise(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("nosuch")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nosuch")


def test_life_of_a_container(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "600"], detach=True, mem_limit="64m")
    try:
        container.reload()
        assert container.status == "running"
        assert container.attrs["HostConfig"]["Memory"] == 64 << 20
        code, output = container.exec_run(["sh", "-c", "echo $((1 + 1)); exit 4"])
        assert (code, output) == (4, b"2\n")
        _, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        assert (out, err) == (b"o\n", b"e\n")
        container.pause()
        container.unpause()
        container.rename("renamed")
        assert client.containers.get("renamed").id == container.id
        assert [row[-1] for row in container.top()["Processes"]] == ["sleep 600"]
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
    finally:
        container.remove(force=True)


def test_logs_stream(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo a; echo b"], detach=True)
    try:
        assert b"".join(container.logs(stream=True, follow=True)) == b"a\nb\n"
        assert container.logs(tail=1) == b"b\n"
    finally:
        container.remove(force=True)


def test_attach_and_type(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["cat"], stdin_open=True)
    try:
        attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        with attached, attached._sock as connection:
            container.start()
            connection.sendall(b"typed\n")
            connection.shutdown(socket.SHUT_WR)
            assert container.wait(timeout=60)["StatusCode"] == 0
        assert container.logs() == b"typed\n"
    finally:
        container.remove(force=True)


def test_images_and_events(client: docker.DockerClient) -> None:
    (image,) = client.images.load(io.BytesIO(busybox_archive("sdk:1")).getvalue())
    assert image.tags == ["busybox:latest", "sdk:1"] or "sdk:1" in image.tags
    events = client.events(decode=True, filters={"type": "image", "event": "tag"})
    image.tag("sdk", "2")
    event = next(events)
    assert (event["Action"], event["Type"]) == ("tag", "image")
    events.close()
    for name in ("sdk:1", "sdk:2"):
        client.images.remove(name)
    saved = b"".join(client.images.get("busybox").save())
    assert len(saved) > 1 << 20
