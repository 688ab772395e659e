"""docker import of what the daemon fetches from a URL."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import docker
import pytest

from cais.testing.archives import busybox_rootfs
from cais.testing.daemon import TestDaemon

SERVER = """
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        else:
            super().do_GET()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def port(daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a server that has ``root.tar`` and ``nonsense``."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "root.tar").write_bytes(busybox_rootfs())
    (directory / "nonsense").write_text("no archive" * 100)
    code = f"import os; os.chdir({str(directory)!r})\n{SERVER}"
    command = [*daemon.enter_namespaces, sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@contextlib.contextmanager
def removed(daemon: TestDaemon, name: str) -> Iterator[str]:
    try:
        yield name
    finally:
        daemon.docker("rmi", "-f", name, check=False)


@pytest.mark.parametrize("client", ["docker", "cais"])
@pytest.mark.parametrize("path", ["root.tar", "to//root.tar"])
def test_an_archive_is_fetched(daemon: TestDaemon, port: str, client: str, path: str) -> None:
    run = daemon.docker if client == "docker" else daemon.cais
    url = f"http://127.0.0.1:{port}/{path}"
    with removed(daemon, "fetched:1") as name:
        said = run("import", "-c", 'CMD ["echo", "fetched"]', url, name).stdout
        (document,) = json.loads(daemon.docker("image", "inspect", name).stdout)
        assert said.splitlines()[-1] == document["Id"]
        assert document["Comment"] == f"Imported from {url}"
        assert daemon.docker("run", "--rm", name).stdout == "fetched\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nosuch", "failed to GET http://127.0.0.1:{}/nosuch with status 404"),
        ("nonsense", "not a tar archive"),
        ("to/file:///etc/passwd", "file:///etc/passwd"),
    ],
)
def test_what_is_no_archive(daemon: TestDaemon, port: str, path: str, said: str) -> None:
    before = daemon.docker("images", "-aq").stdout
    result = daemon.docker("import", f"http://127.0.0.1:{port}/{path}", "never:1", check=False)
    assert result.returncode == 1
    assert said.format(port) in result.stderr
    assert daemon.docker("images", "-aq").stdout == before


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1:1/x"])
def test_where_nothing_is_fetched_from(daemon: TestDaemon, url: str) -> None:
    result = daemon.cais("import", url, "never:1", check=False)
    assert result.returncode == 1
    assert "root:" not in result.stderr + result.stdout


def test_a_name_without_a_scheme_is_http(daemon: TestDaemon, port: str) -> None:
    with removed(daemon, "bare:1") as name:
        client = docker.APIClient(base_url=daemon.host)
        with contextlib.closing(client):
            source = f"127.0.0.1:{port}/root.tar"
            body = client.import_image_from_url(source, repository="bare", tag="1")
        first, *_, last = map(json.loads, body.splitlines())
        assert first == {"status": f"Downloading from http://127.0.0.1:{port}/root.tar"}
        (document,) = json.loads(daemon.docker("image", "inspect", name).stdout)
        assert last == {"status": document["Id"]}
