"""Our registry and Debian's, each with docker (on caisd and on dockerd), podman and skopeo.

Every client pushes, every other one pulls, and the digest is the same everywhere. dockerd is one
of them where it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest

from cais.testing.archives import docker_archive, tar_of
from cais.testing.cais_registry import CaisRegistry
from cais.testing.docker_registry import DockerRegistry
from cais.testing.peers import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.daemon import TestDaemon

PORT = 5065
DOCKERD = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
OURS, PEER = "cais registry serve", "docker-registry"


@pytest.fixture(scope="module")
def registries(
    daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The name of each registry, as images begin."""
    directory = tmp_path_factory.mktemp("registries")
    with (
        CaisRegistry(daemon, directory / "ours") as ours,
        DockerRegistry(daemon, directory, port=PORT) as peer,
    ):
        yield {OURS: ours.name, PEER: peer.name}


@pytest.fixture(params=[OURS, PEER])
def registry(request: pytest.FixtureRequest, registries: dict[str, str]) -> str:
    return registries[request.param]


class Docker:
    """The docker CLI on a daemon."""

    def __init__(self, daemon: TestDaemon, host: str) -> None:
        self._daemon = daemon
        self._host = host

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        return self._daemon.run_client(
            ["docker", "-H", self._host, *arguments], stdin, timeout_s=120
        ).stdout

    def push(self, name: str) -> str:
        return self("push", name).rpartition("digest: ")[2].split()[0]

    def pull(self, name: str) -> tuple[str, list[str]]:
        """Return the digest of what was pulled, and its layers."""
        digest = self("pull", name).partition("Digest: ")[2].split()[0]
        (found,) = json.loads(self("image", "inspect", name))
        self("rmi", name)
        return digest, found["RootFS"]["Layers"]


class Skopeo:
    """skopeo, which keeps nothing itself but what is in ``directory``."""

    def __init__(self, daemon: TestDaemon, directory: Path) -> None:
        self._daemon = daemon
        self._directory = directory

    def __call__(self, *arguments: str) -> str:
        flags = ("--insecure-policy", "--tmpdir", str(self._directory))
        command = [installed("skopeo"), *flags, *arguments]
        return self._daemon.run_inside(command, timeout_s=120).stdout

    def copy(self, source: str, target: str) -> None:
        flags = ("--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
        self("copy", *flags, source, target)

    def push(self, source: str, name: str) -> str:
        self.copy(f"docker://{source}", f"docker://{name}")
        return self.pull(name)[0]

    def pull(self, name: str) -> tuple[str, list[str]]:
        found = json.loads(self("inspect", "--tls-verify=false", f"docker://{name}"))
        configuration = self("inspect", "--tls-verify=false", "--config", f"docker://{name}")
        place = self._directory / "layout"
        self.copy(f"docker://{name}", f"oci:{place}:x")  # reads every byte
        shutil.rmtree(place)
        return found["Digest"], json.loads(configuration)["rootfs"]["diff_ids"]


class Podman:
    """podman with a storage of its own."""

    def __init__(self, daemon: TestDaemon, directory: Path) -> None:
        self._daemon = daemon
        roots = [f"--{name}={directory / name}" for name in ("root", "runroot", "tmpdir")]
        options = ("--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none")
        self._command = [installed("podman"), *roots, *options]
        self._digests = directory / "digest"

    def __call__(self, *arguments: str) -> str:
        environment = ["env", "-u", "DOCKER_CONFIG", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"]
        command = [*environment, *self._command, *arguments]
        return self._daemon.run_inside(command, timeout_s=120).stdout

    def push(self, source: str, name: str) -> str:
        self("pull", "--tls-verify=false", source)
        flags = ("--tls-verify=false", f"--digestfile={self._digests}")
        self("push", *flags, source, f"docker://{name}")
        self("rmi", "-f", source)
        return self._digests.read_text().strip()

    def pull(self, name: str) -> tuple[str, list[str]]:
        self("pull", "--tls-verify=false", name)
        (found,) = json.loads(self("image", "inspect", name))
        self("rmi", "-f", name)
        return found["Digest"], found["RootFS"]["Layers"]


@pytest.fixture(scope="module")
def dockerd(daemon: TestDaemon) -> Iterator[str]:
    """The address of dockerd, in the daemon's namespaces too; "" where it is not installed."""
    if DOCKERD is None:  # `make test` installs the docker CLI, and no daemon
        yield ""
        return
    directory = Path(f"/tmp/cais-dockerd-{os.getpid()}")
    directory.mkdir(mode=0o700)
    address = directory / "docker.sock"
    command = [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", DOCKERD),
        *("-H", f"unix://{address}", "--pidfile", str(directory / "pid")),
        *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
        *("--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"),
    ]
    path = f"PATH={os.path.dirname(DOCKERD)}:{os.environ['PATH']}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*daemon.enter_namespaces, "env", path, *command], stdout=log, stderr=log
        )
        try:
            _wait_until_it_answers(address, process, directory / "log")
            yield f"unix://{address}"
        finally:
            inner = daemon.run_inside(["cat", str(directory / "pid")], check=False).stdout.strip()
            if inner:
                daemon.run_inside(["kill", inner], check=False)
            try:
                process.wait(60)
            finally:
                process.kill()
                shutil.rmtree(directory, ignore_errors=True)


def _wait_until_it_answers(address: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if not probe.connect_ex(str(address)):
                return
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


@pytest.fixture
def clients(daemon: TestDaemon, dockerd: str) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="cais-") as short:  # as podman wants it
        directory = Path(short)
        yield {
            "docker on caisd": Docker(daemon, daemon.host),
            **({"docker on dockerd": Docker(daemon, dockerd)} if dockerd else {}),
            "podman": Podman(daemon, directory),
            "skopeo": Skopeo(daemon, directory),
        }


def an_image(name: str) -> bytes:
    """Return a docker-archive with a small, an empty and a larger layer."""
    layers = [tar_of({"one": b"1"}), tar_of({}), tar_of({"two": os.urandom(300_000)})]
    return docker_archive(name, layers, Cmd=["/one"])


@pytest.mark.timeout(600)  # four clients, each of which does everything
def test_what_one_pushes_everybody_pulls(registry: str, clients: dict[str, Any]) -> None:
    first, second = (f"{registry}/peers/{which}:v1" for which in ("first", "second"))
    archive = an_image(first)
    pushed = {}
    dockers = [client for who, client in clients.items() if who.startswith("docker on ")]
    for docker, name in zip((dockers[0], dockers[-1]), (first, second), strict=True):
        docker("load", stdin=archive)
        if name != first:
            docker("tag", first, name)
        pushed[name] = docker.push(name)
        docker("rmi", *{first, name})
    third = f"{registry}/peers/third:v1"
    pushed[third] = clients["podman"].push(second, third)
    assert clients["skopeo"].push(first, f"{registry}/peers/fourth:v1") == pushed[first]
    layers = None
    for name, expected in pushed.items():
        for who, client in clients.items():
            found, found_layers = client.pull(name)
            assert found == expected, f"{who} pulled {name}"
            layers = layers or found_layers
            assert found_layers == layers, f"{who} pulled {name}"


def test_an_image_moves_between_the_registries(
    registries: dict[str, str], clients: dict[str, Any]
) -> None:
    """By skopeo, byte by byte."""
    ours, peer = registries[OURS], registries[PEER]
    docker, skopeo = clients["docker on caisd"], clients["skopeo"]
    name = f"{ours}/move:v1"
    docker("load", stdin=an_image(name))
    digest = docker.push(name)
    there, back = f"{peer}/move:v1", f"{ours}/move-back:v1"
    assert skopeo.push(name, there) == digest
    assert skopeo.push(there, back) == digest
    assert docker.pull(back)[0] == digest
    docker("rmi", name)


def test_a_mirror(
    daemon: TestDaemon, registries: dict[str, str], clients: dict[str, Any], tmp_path: Path
) -> None:
    """Everybody pulls through a cache of Debian's registry, and nobody pushes to it."""
    registry = registries[PEER]
    name = f"{registry}/mirrored:v1"
    docker = clients["docker on caisd"]
    docker("load", stdin=an_image(name))
    digest = docker.push(name)
    docker("rmi", name)
    proxy = ("--proxy", f"http://127.0.0.1:{registry.partition(':')[2]}")
    with CaisRegistry(daemon, tmp_path, *proxy) as mirror:
        for who in clients.keys() - {"podman"}:
            assert clients[who].pull(f"{mirror.name}/mirrored:v1")[0] == digest
        refused = daemon.run_client(
            ["docker", "push", f"{mirror.name}/mirrored:v1"], check=False
        ).returncode
        assert refused


def test_users_and_tls(daemon: TestDaemon, clients: dict[str, Any], tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    users = tmp_path / "htpasswd"
    users.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--htpasswd", str(users))
    with CaisRegistry(daemon, tmp_path / "root", *flags) as registry:
        name = f"{registry.name}/private:v1"
        daemon.docker("load", stdin=an_image(name))
        assert "no basic auth credentials" in daemon.docker("push", name, check=False).stderr
        login = ("login", "-u", "ann", "--password-stdin", registry.name)
        wrong = daemon.docker(*login, stdin="wrong", check=False)
        assert wrong.returncode
        assert "Login Succeeded" in daemon.docker(*login, stdin="secret").stdout
        digest = clients["docker on caisd"].push(name)
        daemon.docker("rmi", name)
        assert clients["docker on caisd"].pull(name)[0] == digest
        shown = daemon.run_inside(
            ["skopeo", "inspect", "--tls-verify=false", "--creds=ann:secret", f"docker://{name}"]
        )
        assert json.loads(shown.stdout)["Digest"] == digest
        daemon.docker("logout", registry.name)
        assert "no basic auth credentials" in daemon.docker("pull", name, check=False).stderr


def make_certificate(directory: Path) -> tuple[Path, Path]:
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-days", "2"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    return key, certificate


def test_beside_the_engine(daemon: TestDaemon, clients: dict[str, Any]) -> None:
    """Its images are pulled without having been pushed, and no bytes are there twice."""
    with CaisRegistry(daemon, daemon.data_root) as registry:
        lent = f"{registry.name}/library/busybox:latest"
        digest = clients["skopeo"].pull(lent)[0]
        theirs = clients.get("docker on dockerd", clients["skopeo"])
        assert theirs.pull(lent)[0] == digest
        name = f"{registry.name}/library/busybox:pushed"
        daemon.docker("tag", "busybox", name)
        docker = clients["docker on caisd"]
        digest = docker.push(name)
        daemon.docker("rmi", name)
        daemon.docker("image", "prune", "-f")
        pushed = daemon.data_root / "registry/content/blobs/sha256"
        for path in pushed.iterdir():
            twin = daemon.data_root / "content/blobs/sha256" / path.name
            assert twin.stat().st_ino == path.stat().st_ino
        assert docker.pull(name)[0] == digest
        assert theirs.pull(name)[0] == digest
