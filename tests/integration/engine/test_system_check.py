"""``cais system check``: whatever is damaged is found and named; ``--repair`` mends what it can.

SECURITY.md F-15 (a blob, a configuration, a manifest, a layer) and F-16 (the databases).
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cais.testing.daemon import BIN, TestDaemon
from cais.testing.damage import cut, flip
from cais.testing.image_store import config_of, docker_archive, hex_digest
from cais.testing.raw_tar import Member, tar

LAYERS = [
    tar([Member("dir/", kind=b"5", mode=0o755), Member("dir/file", b"content" * 5000)]),
    tar([Member("other", b"o" * 9000), Member("dir/link", kind=b"2", link="file")]),
]
CONFIG = config_of([hex_digest(layer) for layer in LAYERS])
ARCHIVE = docker_archive(LAYERS, ["two:layers"], config=CONFIG)


class Root:
    """The data root of a daemon that can be stopped, and what is checked of it."""

    def __init__(self, daemon: TestDaemon) -> None:
        self.daemon = daemon
        self.path = daemon.data_root
        self.blobs = self.path / "content/blobs/sha256"

    def check(self, *options: str) -> tuple[int, str]:
        command = [str(BIN / "cais"), "--data-root", str(self.path), "system", "check", *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("CAIS", "DOCKER"))}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=110
        )
        return done.returncode, done.stdout + done.stderr

    def assert_sound(self) -> None:
        assert self.check() == (0, f"{self.path}: no problems\n")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self.daemon.stop()
        yield
        self.daemon.start()

    def layer(self, name: str) -> Path:
        """Return the directory of the layer that has a file."""
        return next(
            each for each in (self.path / "snapshots").iterdir()
            if each.name.isdecimal() and (each / name).exists()
        )  # fmt: skip

    def rows(self, database: str, query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.path / database)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def root(fresh_daemon: Callable[..., TestDaemon]) -> Root:
    daemon = fresh_daemon()
    daemon.docker("load", stdin=ARCHIVE)
    daemon.docker("run", "--name", "kept", "-v", "volume:/v", "busybox", "sh", "-c", "echo x >/x")
    return Root(daemon)


_OPEN = (".db-wal", ".db-shm")
"""Made by whoever looks into a database, and by itself nothing."""


def files(root: Root) -> list[str]:
    return sorted(str(path) for path in root.path.rglob("*") if path.suffix not in _OPEN)


def test_a_sound_root_is_sound_while_a_daemon_runs_and_without(root: Root) -> None:
    status, said = root.check()
    assert (status, said.splitlines()) == (
        0,
        [
            "not checked: what belongs to nobody, and the files of layers: a daemon is at work",
            f"{root.path}: no problems",
        ],
    )
    status, said = root.check("--repair")
    assert status == 125
    assert "a daemon is using" in said
    with root.stopped():
        before = files(root)
        root.assert_sound()
        assert files(root) == before
        assert root.check("--repair")[0] == 0
        root.assert_sound()
    assert root.daemon.docker("start", "-a", "kept").stdout == ""


@pytest.mark.parametrize(
    ("part", "damage"), [("configuration", flip), ("manifest", os.unlink), ("layer", cut)]
)
def test_a_damaged_blob_is_named_put_aside_and_comes_back(
    root: Root, part: str, damage: Callable[[Path], None]
) -> None:
    manifest = str(
        root.rows(
            "images.db",
            "SELECT manifest FROM names JOIN images ON id = image_id WHERE tag = 'layers'",
        )[0][0]
    )
    digest = {
        "configuration": hex_digest(CONFIG),
        "manifest": manifest.removeprefix("sha256:"),
        "layer": hex_digest(LAYERS[1]),
    }[part]
    damage(root.blobs / digest)
    word = "lacks blob" if damage is os.unlink else "is damaged"
    status, said = root.check()
    assert status == 1
    assert f"sha256:{digest}" in said
    assert "two:layers" in said
    assert word in said
    root.daemon.docker("images")  # the others are listed all the same
    with root.stopped():
        status, said = root.check("--repair", "--quick")
        status, said = root.check("--repair")
        assert status == 1
        assert f"image two:layers lacks blob sha256:{digest}" in said
        kept = [path.name for path in (root.path / "quarantine").glob("*")]
        assert len(kept) == (damage is not os.unlink)
    root.daemon.docker("load", stdin=ARCHIVE)
    with root.stopped():
        root.assert_sound()
    assert (
        root.daemon.docker("run", "--rm", "two:layers", "/nothing", check=False).returncode == 127
    )


def test_a_damaged_image_can_be_removed_and_pruned(root: Root) -> None:
    flip(root.blobs / hex_digest(CONFIG))
    root.daemon.restart()  # forgets configurations it has read
    listed = root.daemon.docker("images", "--format", "{{.Repository}}").stdout.split()
    assert sorted(listed) == ["busybox", "two"]
    refused = root.daemon.docker("run", "--rm", "two:layers", "x", check=False)
    assert "is damaged" in refused.stderr
    saved = root.daemon.docker("save", "two:layers", check=False)
    assert saved.returncode == 1
    assert "untagged: two:layers" in root.daemon.docker("image", "prune", "-af").stdout.lower()
    with root.stopped():
        root.assert_sound()


def change_file(layer: Path) -> None:
    (layer / "other").write_bytes(b"p" * 9000)


def lose_file(layer: Path) -> None:
    (layer / "other").unlink()


def add_file(layer: Path) -> None:
    (layer / "more").touch()


def open_up(layer: Path) -> None:
    (layer / "other").chmod(0o666)


def test_a_damaged_layer_is_named_and_unpacked_again(root: Root) -> None:
    layer = root.layer("other")
    with root.stopped():
        for damage in (change_file, lose_file, add_file, open_up, shutil.rmtree):
            damage(layer)
            status, said = root.check()
            assert status == 1
            assert said.startswith("layer sha256:")
            root.check("--repair")
            root.assert_sound()
            assert (layer / "other").read_bytes() == b"o" * 9000
            assert (layer / "other").stat().st_mode & 0o777 == 0o644
    assert not list((root.path / "snapshots").glob("check-*"))


def test_what_belongs_to_nobody_is_removed(root: Root) -> None:
    stray = b"stray"
    with root.stopped():
        (root.blobs / hex_digest(stray)).write_bytes(stray)
        (root.path / "content/ingest/half").write_bytes(b"h")
        (root.path / "snapshots/99").mkdir()
        (root.path / "containers" / ("f" * 64)).mkdir()
        connection = sqlite3.connect(root.path / "snapshots/snapshots.db")
        connection.execute(
            "INSERT INTO snapshots(number, key, kind, created_ns)"
            " VALUES (77, 'import-x', 'active', 1)"
        )
        connection.commit()
        connection.close()
        (root.path / "snapshots/77").mkdir()
        status, said = root.check("--quick")
        assert status == 1
        for word in (hex_digest(stray), "ingest/half", "/99 ", "f" * 64, "import-x"):
            assert word in said
        status, said = root.check("--repair")
        assert status == 0, said
        root.assert_sound()
        assert not (root.path / "snapshots/77").exists()


def scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"scribble" * 600)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def forget_commits(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.db", scribble),
        ("snapshots/snapshots.db", empty),
        ("snapshots/snapshots.db", forget_commits),
        ("state.db", scribble),
        ("state.db", forget_commits),
    ],
)
def test_a_damaged_database_is_rebuilt_and_nothing_is_lost(
    root: Root, name: str, damage: Callable[[Path], None]
) -> None:
    daemon = root.daemon
    images, containers = (
        sorted(daemon.docker(*words, "--no-trunc", "--format", "{{.ID}}").stdout.split())
        for words in (["images"], ["ps", "-a"])
    )
    daemon.stop()
    damage(root.path / name)
    status, said = root.check()
    assert status == 1
    assert f"database {Path(name).name}" in said
    if name != "state.db":
        assert root.check("--repair")[0] == 0
        root.assert_sound()
    daemon.start()  # it mends by itself what nobody repaired
    assert sorted(daemon.docker("images", "--no-trunc", "-q").stdout.split()) == images
    assert daemon.docker("ps", "-a", "--no-trunc", "-q").stdout.split() == containers
    assert daemon.docker("start", "-a", "kept").stdout == ""
    daemon.docker("run", "--rm", "busybox", "true")
    with root.stopped():
        root.assert_sound()


@pytest.mark.parametrize("damage", [scribble, empty, forget_commits])
def test_the_database_of_containers_is_rebuilt_without_a_daemon(
    root: Root, damage: Callable[[Path], None]
) -> None:
    daemon = root.daemon
    daemon.docker("run", "-d", "--name", "runs", "busybox", "sleep", "600")
    listing = ["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]
    containers = daemon.docker(*listing).stdout
    daemon.stop()
    forgotten = "e" * 64  # a container that neither the database nor its copy knows
    (root.path / "containers" / forgotten).mkdir()
    damage(root.path / "state.db")
    status, said = root.check("--repair", "--quick")
    assert status == 0, said
    assert "rebuilt, with 2 containers" in said
    assert f"{root.path}: 1 problems, 1 repaired" in said
    assert root.check("--quick")[0] == 0
    daemon.start()
    assert daemon.docker(*listing).stdout == containers
    assert daemon.docker("exec", "runs", "echo", "here").stdout == "here\n"
    assert (root.path / "containers" / forgotten).exists()
    daemon.docker("rm", "-f", "runs")
    daemon.restart()  # it is sure of what it knows now
    assert not (root.path / "containers" / forgotten).exists()
    with root.stopped():
        root.assert_sound()


def test_a_rebuilt_database_lets_nothing_be_removed_before_a_daemon_was_there(root: Root) -> None:
    with root.stopped():
        scribble(root.path / "state.db")
        assert root.check("--repair", "--quick")[0] == 0
        stray = root.path / "snapshots/99"
        stray.mkdir()
        status, said = root.check("--repair", "--quick")
        assert status == 0
        assert "not checked: what belongs to no container: state.db was rebuilt" in said
        assert stray.exists()


def test_the_copy_of_the_database_of_containers_is_written_anew(root: Root) -> None:
    with root.stopped():
        for damage in (scribble, forget_commits):
            damage(root.path / "copies.db")
            status, said = root.check("--quick")
            assert status == 1
            assert "database copies.db is" in said
            assert root.check("--repair", "--quick")[0] == 0
            root.assert_sound()
            assert len(root.rows("copies.db", "SELECT id FROM copies")) == 1
        scribble(root.path / "state.db")
        scribble(root.path / "copies.db")
        status, said = root.check("--repair")
        assert status == 1
        assert "and its copy copies.db is damaged" in said


@pytest.mark.parametrize("name", ["images.db", "snapshots/snapshots.db"])
def test_a_database_lost_with_its_copy_is_refused_and_nothing_is_deleted(
    root: Root, name: str
) -> None:
    daemon = root.daemon
    daemon.stop()
    for path in (root.path / name).parent.glob(f"{Path(name).stem}.*db*"):
        path.unlink()
    before = sorted(str(path) for path in root.path.rglob("[0-9a-f]*"))
    status, said = root.check("--repair")
    assert status == 1
    assert "is gone, and its copy" in said
    done = daemon.run_inside(daemon.command(), check=False)
    assert done.returncode == 1
    assert "nothing was deleted" in done.stderr
    assert sorted(str(path) for path in root.path.rglob("[0-9a-f]*")) == before
