"""Wrong command lines about images and registries: Docker's words, on standard error, and status.

Every text is of dockerd 20.10 too, but for what it words otherwise than 28 and is matched loosely.
The docker CLI 29 finds wrong platforms itself, and does not answer for the daemon.
"""

# ruff: noqa: E501 - a command line and its answer stand on one line

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cais.testing.docker_registry import DockerRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.daemon import TestDaemon

PORT = 5069
R = f"localhost:{PORT}"
D = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEX = D.partition(":")[2]
DAEMON = "Error response from daemon: "
FOUND_NONE = (
    "Error(?: response from daemon)?: "  # the docker CLI 20.10 says less of what is missing
)
UPPER = r"invalid reference format: repository name (\(library/UPPER\) )?must be lowercase"
REFUSED = r"dial tcp.* connect: connection refused"


@pytest.fixture(scope="module")
def registry(daemon: TestDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with DockerRegistry(daemon, tmp_path_factory.mktemp("registry"), port=PORT) as running:
        yield running.name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pull UPPER", UPPER),
        ("pull busybox:latest@sha256:abc", "invalid reference format"),
        ("pull x:-bad", "invalid reference format"),
        (f"pull http://{R}/x", "invalid reference format"),
        (f"pull {HEX}", rf"invalid repository name \({HEX}\), cannot specify 64-byte hexadecimal strings"),
        (f"pull {R}/no", f"{DAEMON}manifest for {R}/no:latest not found: manifest unknown: manifest unknown"),
        (f"pull {R}/no:tag", f"{DAEMON}manifest for {R}/no:tag not found: manifest unknown: manifest unknown"),
        (f"pull {R}/no@{D}", f"{DAEMON}manifest for {R}/no@{D} not found: manifest unknown: manifest unknown"),
        (f"pull -a {R}/no", f"{DAEMON}repository {R}/no not found: name unknown: repository name not known to registry"),
        (f"pull -a {R}/no:tag", "tag can't be used with --all-tags/-a"),
        ("pull localhost:1/x", f'{DAEMON}Get "http://localhost:1/v2/": {REFUSED}'),
        (f"pull --platform bogus {R}/no", f'{DAEMON}"bogus": unknown operating system or architecture: invalid argument'),
        (f"pull --platform linux/ {R}/no", f'{DAEMON}"" is an invalid component of "linux/": platform specifier component must match'),
        ("push nosuch", "An image does not exist locally with the tag: nosuch"),
        ("push nosuch:tag", "An image does not exist locally with the tag: nosuch"),
        ("push -a nosuch", "An image does not exist locally with the tag: nosuch"),
        ("push -a busybox:latest", "tag can't be used with --all-tags/-a"),
        (f"push busybox@{D}", "cannot push a digest reference"),
        ("push UPPER", UPPER),
        ("tag nosuch x", f"{DAEMON}No such image: nosuch:latest"),
        ("tag busybox UPPER", f'[Ee]rror parsing reference: "UPPER" is not a valid repository/tag: {UPPER}'),
        (f"tag busybox x@{D}", "refusing to create a tag with a digest reference"),
        ("tag busybox sha256:x", f"{DAEMON}refusing to create an ambiguous tag using digest algorithm as name"),
        ("rmi nosuch", f"{FOUND_NONE}No such image: nosuch(:latest)?$"),
        ("rmi UPPER", f"{DAEMON}{UPPER}"),
        ("rmi sha256:00", f"{FOUND_NONE}No such image: sha256:00"),
        (f"rmi busybox@{D}", f"{FOUND_NONE}No such image: busybox@{D}"),
        ("save nosuch", f"{DAEMON}No such image: nosuch"),
        ("save busybox nosuch", f"{DAEMON}No such image: nosuch"),
        ("save UPPER", f"{DAEMON}{UPPER}"),
        ("save busybox -o /nonexistent/x.tar", "failed to save image: invalid output path:|invalid output path:"),
        ("load -i /nonexistent", "open /nonexistent: no such file or directory"),
        ("import /nonexistent", "open /nonexistent: no such file or directory"),
        ("import http://localhost:1/x.tar", f'{DAEMON}Get "http://localhost:1/x.tar": {REFUSED}'),
        (f"import http://{R}/x.tar", f"{DAEMON}failed to GET http://{R}/x.tar with status 404 Not Found: 404 page not found"),
        ("import /dev/null UPPER", UPPER),
        (f"import /dev/null x:y@{D}", f"{DAEMON}cannot import digest reference"),
        ("import -c BOGUS=x /dev/null x", f"{DAEMON}(?i:bogus=x) is not a valid change command"),
        ("import --platform a/b/c/d /dev/null x", f'{DAEMON}"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("commit nosuch", f"{DAEMON}No such container: nosuch"),
        ("commit nosuch UPPER", UPPER),
        ("search --limit 101 x", f"{DAEMON}[Ll]imit 101 is outside the range of \\[1, 100\\]"),
        ("search --filter bogus=1 x", f"{DAEMON}[Ii]nvalid filter 'bogus'"),
        ("search --filter stars=x x", f"{DAEMON}[Ii]nvalid filter 'stars="),
        ("login -u a -p b localhost:1", f'{DAEMON}Get "http://localhost:1/v2/": {REFUSED}'),
        (f"login --password-stdin {R}", "[Mm]ust provide --username with --password-stdin|the --password-stdin option requires --username to be set"),
        (f"login -u a -p b --password-stdin {R}", "--password and --password-stdin are mutually exclusive|conflicting options: cannot specify both --password and --password-stdin"),
        ("history nosuch", f"{DAEMON}No such image: nosuch:latest"),
        ("images --filter before=nosuch", f"{DAEMON}No such image: nosuch:latest"),
        ("image prune -f --filter until=x", f'{DAEMON}failed to parse value as time or duration: "x"'),
    ],
)  # fmt: skip
def test_a_mistake(
    daemon: TestDaemon, registry: str, docker_major: int, line: str, said: str
) -> None:
    del registry
    if docker_major >= 29 and "--platform" in line:
        said = said.removeprefix(DAEMON)
    before = daemon.docker("images", "-aq").stdout
    result = daemon.docker(*line.split(), check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert re.match(said, last), result.stderr
    assert daemon.docker("images", "-aq").stdout == before


def test_one_mistake_of_two(daemon: TestDaemon) -> None:
    daemon.docker("tag", "busybox", "going:1")
    result = daemon.docker("rmi", "nosuch", "going:1", check=False)
    assert result.returncode == 1
    assert result.stdout == "Untagged: going:1\n"
    assert re.search(r"No such image: nosuch(:latest)?\n$", result.stderr)


@pytest.mark.parametrize(
    ("verb", "content"),
    [
        *((("load",), content) for content in (b"", b"garbage", bytes(1024), b"x" * 2000)),
        *((("import", "-"), content) for content in (b"garbage", b"x" * 2000)),  # empty is an image
    ],
)
def test_archives_that_are_none(daemon: TestDaemon, verb: tuple[str, ...], content: bytes) -> None:
    before = daemon.docker("images", "-aq").stdout
    result = daemon.docker(*verb, stdin=content, check=False)
    assert result.returncode == 1
    assert result.stderr
    assert "Traceback" not in result.stderr
    assert daemon.docker("images", "-aq").stdout == before
