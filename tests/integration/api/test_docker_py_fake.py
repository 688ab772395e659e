"""docker-py against the API, with a fake engine behind."""

import gc
import io
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from cais.errors import ConflictError, NotFoundError
from cais.testing.fake_engine import CONTAINER_ID, EXEC_ID, FakeWaitResult
from cais.testing.waiting import PATIENCE_S

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(params=["auto", "1.24", "1.41", "1.44"])
def client(served: Any, request: pytest.FixtureRequest) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=served.host, version=request.param)
    yield client
    client.close()
    with warnings.catch_warnings():  # docker-py lets go of sockets without closing them
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_ping_version_and_info(client: docker.DockerClient) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["ID"] == "fake"


def test_create_start_wait_and_inspect(client: docker.DockerClient, served: Any) -> None:
    container = client.containers.create("busybox", "true", name="n")
    assert container.id == CONTAINER_ID
    container.start()
    container.reload()
    assert container.status == "running"
    served.in_loop(
        lambda: served.loop.call_later(0.05, lambda: served.waits[-1].set_result(FakeWaitResult(3)))
    )
    assert container.wait()["StatusCode"] == 3
    container.stop(timeout=3)
    assert served.arguments("lifecycle.stop")["timeout"] == 3
    container.remove(force=True, v=True)
    assert served.arguments("containers.remove")["force"] is True


def test_errors_become_exceptions(client: docker.DockerClient, served: Any) -> None:
    served.failures["containers.inspect"] = NotFoundError("No such container: x")
    with pytest.raises(docker.errors.NotFound, match="No such container: x"):
        client.containers.get("x")
    served.failures["containers.rename"] = ConflictError("taken")
    with pytest.raises(docker.errors.APIError, match=r"409 .*taken"):
        client.api.rename("x", "y")


def test_exec_attached(client: docker.DockerClient, served: Any) -> None:
    exec_id = client.api.exec_create("x", "true")["Id"]
    assert exec_id == EXEC_ID
    stream = client.api.exec_start(exec_id, stream=True)
    session = served.sessions.get(timeout=PATIENCE_S)
    session.peer.sendall(b"\x01\x00\x00\x00\x00\x00\x00\x03abc")
    session.peer.close()
    assert b"".join(stream) == b"abc"
    assert client.api.exec_inspect(exec_id)["ExitCode"] == 0


def test_attach_socket_both_ways(client: docker.DockerClient, served: Any) -> None:
    stream = client.api.attach_socket("x", {"stdin": 1, "stdout": 1, "stream": 1})
    session = served.sessions.get(timeout=PATIENCE_S)
    stream._sock.sendall(b"ping")
    assert session.peer.recv(10) == b"ping"
    session.peer.sendall(b"pong")
    assert stream._sock.recv(10) == b"pong"
    stream._response.close()  # while its file is open: flushes it (Python 3.13 tells)
    stream.close()


def test_load_save_and_import(client: docker.DockerClient, served: Any) -> None:
    archive = io.BytesIO(b"t" * 3_000_000)
    lines = list(client.api.load_image(archive))
    assert b"Loaded image" in repr(lines).encode()
    assert served.loaded == b"t" * 3_000_000
    assert b"".join(client.api.get_image("busybox")) == b"tar"
    served.loaded.clear()
    client.api.import_image_from_data(b"rootfs", repository="r", tag="t")
    assert served.loaded == b"rootfs"
    assert served.arguments("images.import_")["repository"] == "r"


def test_events_and_logs(client: docker.DockerClient, served: Any) -> None:
    events = client.events(decode=True)
    event = {"Type": "container", "Action": "die", "Actor": {"ID": "c", "Attributes": {}}}
    served.in_loop(lambda: served.subscriptions[-1].events.put_nowait(event))
    assert next(events)["status"] == "die"
    events.close()
    assert client.api.logs("x", stdout=True, tail=5) is not None
    assert served.arguments("streams.logs")["tail"] == 5
    client.api.logs("x", since=1.5)
    assert served.arguments("streams.logs")["since_ns"] == 1_500_000_000


def test_transfers(client: docker.DockerClient, served: Any) -> None:
    pulled = client.api.pull("busybox", tag="latest", stream=True, decode=True)
    assert next(iter(pulled))["id"] == "latest"
    served.failures["transfers.pull"] = NotFoundError("manifest for busybox:no not found")
    with pytest.raises(docker.errors.NotFound, match="manifest for busybox:no not found"):
        client.images.pull("busybox", tag="no")
    auth = {"username": "jane", "password": "secret"}
    client.api.push("localhost:5000/box", tag="1", auth_config=auth)
    sent = served.arguments("transfers.push")
    assert (sent["0"], sent["1"]) == ("localhost:5000/box", "1")
    assert sent["credentials"] == ("jane", "secret", "", "")
