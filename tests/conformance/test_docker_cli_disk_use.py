"""``docker system df`` says what ``du`` says, prunes give it back, ``cais`` prints the same.

The definition of the sizes is in ``cais.engine.disk_use``.
"""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cais.client import Address, Client
from cais.errors import InvalidArgumentError
from cais.testing.daemon import TestDaemon
from cais.testing.image_store import config_of, docker_archive, hex_digest
from cais.testing.raw_tar import Member, tar

ENGINE_BYTES = 8 << 20
"""More than the engine's own files have: databases, and directories to put things in."""

BASE = tar([Member("base", b"b" * 300_000)])
OTHERS = [tar([Member(name, name.encode() * 30_000)]) for name in ("first", "second")]
WRITE = "head -c 1000000 /dev/urandom >/file; head -c 300000 /dev/urandom >/kept/file"


def usage(daemon: TestDaemon, **query: object) -> dict[str, Any]:
    report: dict[str, Any] = Client(Address.parse(daemon.host)).get("/system/df", query).json()
    return report


def reported(report: dict[str, Any]) -> int:
    containers = sum(one["SizeRw"] for one in report["Containers"])
    volumes = sum(one["UsageData"]["Size"] for one in report["Volumes"])
    size: int = report["LayersSize"] + containers + volumes
    return size


def disk_use(*paths: Path) -> int:
    command = ["du", "-s", "-c", "-B1", *paths]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(said.splitlines()[-1].split()[0]) if paths else 0


def kept(root: Path) -> list[Path]:
    """Return what users have in a data root, without the engine's own files."""
    numbers = re.compile(r"\d+").fullmatch
    return [
        *(root / "content/blobs/sha256").iterdir(),
        *(one for one in (root / "snapshots").iterdir() if numbers(one.name)),
        *(root / "snapshots/work").iterdir(),
        *(root / "containers").iterdir(),
        *(root / "volumes").glob("*/_data"),
    ]


def settled(daemon: TestDaemon, timeout_s: float = 60) -> int:
    """Return what is reported, once that is what du says: containers are tidied up behind."""
    deadline = time.monotonic() + timeout_s
    while True:
        report, found = reported(usage(daemon)), disk_use(*kept(daemon.data_root))
        if report == found:
            return report
        assert time.monotonic() < deadline, f"system df: {report} bytes, du: {found} bytes"


def load(daemon: TestDaemon, name: str, layers: Sequence[bytes]) -> None:
    config = config_of([hex_digest(layer) for layer in layers], comment=name)
    daemon.docker("load", stdin=docker_archive(layers, [f"{name}:latest"], config=config))


def test_the_sum_is_what_du_says(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon()
    at_first = settled(daemon)
    load(daemon, "one", [BASE, OTHERS[0]])
    load(daemon, "two", [BASE, OTHERS[1]])
    daemon.docker("tag", "two", "three")
    daemon.docker("create", "--name", "made", "busybox", "true")
    daemon.docker("run", "--name", "ended", "-v", "kept:/kept", "busybox", "sh", "-c", WRITE)
    daemon.docker("run", "-d", "--name", "runs", "-v", "/kept", "busybox", "sleep", "600")
    daemon.docker("exec", "runs", "sh", "-c", WRITE)
    daemon.docker("run", "--name", "says", "busybox", "seq", "20000")
    daemon.docker("rmi", "-f", "busybox")  # what containers stand on stays
    everything = settled(daemon)
    assert everything > at_first + 2 * 1_300_000
    rest = disk_use(daemon.data_root) - everything
    assert 0 < rest < ENGINE_BYTES
    daemon.docker("rm", "-f", "-v", "made", "ended", "runs", "says")
    daemon.docker("volume", "rm", "kept")
    daemon.docker("rmi", "one", "two", "three")
    daemon.docker("images", "-q")
    daemon.docker("image", "prune", "-af")
    assert settled(daemon) == 0


def test_what_images_share_is_counted_once(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(load=False)
    load(daemon, "one", [BASE, OTHERS[0]])
    load(daemon, "two", [BASE, OTHERS[1]])
    report = usage(daemon)
    one, two = report["Images"]
    assert one["SharedSize"] == two["SharedSize"] > 2 * 300_000  # the layer and its blob
    own = [each["Size"] - each["SharedSize"] for each in (one, two)]
    assert report["LayersSize"] == one["SharedSize"] + sum(own)
    assert [each["Containers"] for each in (one, two)] == [0, 0]
    said = daemon.docker("image", "prune", "-af").stdout
    assert said.count("deleted: ") == 2 + 3  # images, and layers: the shared one once
    assert usage(daemon)["LayersSize"] == 0


def test_a_prune_gives_back_what_it_says(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon()
    load(daemon, "one", [BASE, OTHERS[0]])
    daemon.docker("run", "--name", "ended", "-v", "kept:/kept", "busybox", "sh", "-c", WRITE)
    client = Client(Address.parse(daemon.host))
    for path, query in (
        ("/containers/prune", None),
        ("/volumes/prune", {"filters": '{"all": ["1"]}'}),
        ("/images/prune", {"filters": '{"dangling": ["0"]}'}),
    ):
        before = settled(daemon)
        freed = client.post(path, query).json()["SpaceReclaimed"]
        assert freed > 300_000
        assert settled(daemon) == before - freed
    assert settled(daemon) == 0


def test_kinds_of_objects_and_older_clients(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon()
    assert usage(daemon, type="volume") == {
        "LayersSize": 0,
        "Images": None,
        "Containers": None,
        "Volumes": [],
        "BuildCache": None,
    }
    with pytest.raises(InvalidArgumentError, match="unknown object type: colour"):
        usage(daemon, type="colour")
    old = Client(Address.parse(daemon.host), version="1.41").get("/system/df").json()
    assert old["BuilderSize"] == 0
    assert old["Images"][0]["VirtualSize"] == old["Images"][0]["Size"]


def test_cais_prints_what_docker_prints(
    fresh_daemon: Callable[..., TestDaemon], docker_major: int
) -> None:
    daemon = fresh_daemon()
    daemon.docker("run", "--name", "ended", "-v", "kept:/kept", "busybox", "sh", "-c", WRITE)
    settled(daemon)
    compared = [
        ["system", "df"],
        ["system", "df", "--format", "table {{.Type}}\t{{.TotalCount}}"],
    ]
    if docker_major >= 23:
        compared += [["system", "df", "--format", "json"]]
    if docker_major >= 28:  # others ask in other words
        kinds = (["container"], ["image"], ["image", "-a"], ["network"], ["volume", "-a"])
        compared += [[kind, "prune", *options] for kind, *options in kinds]
        compared += [
            ["system", "prune"],
            ["system", "prune", "-a", "--volumes", "--filter", "label=x"],
            ["system", "prune", "-f", "--volumes", "--filter", "until=1h"],
            ["image", "prune", "-f", "--filter", "colour=red"],
        ]
    for command in compared:
        theirs = daemon.docker(*command, check=False, stdin="n\n")
        ours = daemon.cais(*command, check=False, stdin="n\n")
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), command
        assert ours.stderr.split() == theirs.stderr.split(), command


def test_a_system_prune_by_either_client(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon()
    reports = []
    for client in (daemon.docker, daemon.cais):
        load(daemon, "one", [BASE])
        load(daemon, "two", [BASE])
        daemon.docker("tag", "one", "two")  # leaves an image without a name
        made = daemon.docker("create", "-v", "/kept", "busybox", "true").stdout.strip()
        said = client("system", "prune", "-f").stdout
        assert made in said
        assert "deleted: sha256:" in said
        names = daemon.docker("images", "--format", "{{.Repository}}").stdout.split()
        assert sorted(names) == ["busybox", "one", "two"]
        said += client("system", "prune", "-f", "--volumes", "--filter", "label!=none").stdout
        assert daemon.docker("volume", "ls", "-q").stdout == ""
        reports.append(re.sub(r"[0-9a-f]{64}", "<id>", said))
    assert reports[0] == reports[1]


def test_images_by_filters(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(load=False)
    for year, labels in ((2021, {}), (2022, {"colour": "red"}), (2023, {"colour": "blue"})):
        layer = tar([Member(str(year), b"x")])
        config = config_of(
            [hex_digest(layer)], created=f"{year}-01-01T00:00:00Z", config={"Labels": labels}
        )
        daemon.docker("load", stdin=docker_archive([layer], [f"of/{year}:latest"], config=config))

    def listed(*filters: str) -> list[str]:
        options = [f"--filter={one}" for one in filters]
        shown = daemon.docker("images", "--format", "{{.Repository}}", *options).stdout
        return sorted(shown.replace("of/", "").split())

    assert listed("before=of/2023") == ["2021", "2022"]
    assert listed("since=of/2021") == ["2022", "2023"]
    assert listed("since=of/2021", "before=of/2023") == ["2022"]
    assert listed("label=colour") == ["2022", "2023"]
    assert listed("label=colour=red") == ["2022"]
    assert listed("reference=of/202[12]") == ["2021", "2022"]
    assert listed("dangling=true") == []
    daemon.docker("tag", "of/2021", "of/2022")
    assert listed("dangling=true") == ["<none>"]
    assert listed("dangling=false") == ["2021", "2022", "2023"]
    pruned = daemon.docker("image", "prune", "-f", "--filter", "label=colour=blue").stdout
    assert "Deleted" not in pruned
    daemon.docker("image", "prune", "-af", "--filter", "until=2022-06-01T00:00:00Z")
    assert listed() == ["2023"]
