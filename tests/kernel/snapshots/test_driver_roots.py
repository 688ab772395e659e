"""What a container sees, writes and leaves behind is the same with every storage driver."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_kit import every_driver, layer, mounted, on_driver, opened

from cais.images.layer_writer import pack_changes, pack_tree
from cais.linux import btrfs
from cais.linux.whiteouts import is_whiteout, make_opaque, make_whiteout
from cais.snapshots.differences import DifferenceSnapshotter
from cais.snapshots.merged import MergedTree, open_snapshot
from cais.snapshots.snapshotter import Kind

MIB = 1 << 20
# file capability cap_net_bind_service+ep, version 2
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def text(path: Path, content: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def fill_base(top: Path) -> None:
    text(top / "etc/passwd", "root")
    text(top / "etc/gone")
    text(top / "old/deep/file")
    text(top / "opaque/hidden")
    text(top / "becomes_file/inside")
    text(top / "becomes_directory")
    os.link(text(top / "links/one"), top / "links/two")
    os.symlink("/etc/passwd", top / "link")
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    tool = text(top / "tool")
    os.chown(tool, 12, 34)
    tool.chmod(0o4755)
    os.setxattr(tool, "security.capability", CAPABILITY)
    os.setxattr(tool, "trusted.note", b"kept")
    with (top / "sparse").open("wb") as file:
        file.seek(4 * MIB)
        file.write(b"end")
    os.utime(top / "etc/passwd", ns=(10**18, 10**18 + 7))
    os.utime(top / "etc", ns=(10**18, 10**18 + 9))
    top.chmod(0o751)


def fill_second(top: Path) -> None:
    """What unpacking makes of whiteouts and opaque directories."""
    top.chmod(0o751)
    (top / "etc").mkdir(mode=0o700)
    fds = [os.open(top / "etc", os.O_RDONLY), os.open(top, os.O_RDONLY)]
    make_whiteout(fds[0], "gone")
    make_whiteout(fds[1], "old")
    text(top / "opaque/shown")
    opaque_fd = os.open(top / "opaque", os.O_RDONLY)
    make_opaque(opaque_fd)
    text(top / "becomes_file")
    text(top / "becomes_directory/inside")
    for fd in (*fds, opaque_fd):
        os.close(fd)


def make_image(snapshotter: DifferenceSnapshotter) -> str:
    layer(snapshotter, "base", None, fill_base)
    layer(snapshotter, "second", "base", fill_second)
    return "second"


def paths(top: Path) -> Iterator[Path]:
    return (path for path in sorted(top.rglob("*")) if "lost+found" not in path.parts)


def names(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in paths(top)}


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that an image can say."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (top, *paths(top)):
        status = path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes(), status.st_nlink, status.st_mtime_ns
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith("trusted.overlay.")
        }
        owner = status.st_mode, status.st_uid, status.st_gid, status.st_rdev
        found[str(path.relative_to(top))] = (owner, content, attributes)
    return found


@every_driver
def test_an_image_is_shown_with_everything_that_belongs_to_it(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.prepare("container", make_image(snapshotter))
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert names(root) == {
                    *("etc", "etc/passwd", "opaque", "opaque/shown", "becomes_file", "link"),
                    *("becomes_directory", "becomes_directory/inside", "links", "links/one"),
                    *("links/two", "fifo", "null", "tool", "sparse"),
                }
                assert root.stat().st_mode & 0o777 == 0o751
                assert (root / "etc").stat().st_mode & 0o777 == 0o700
                assert (root / "etc/passwd").stat().st_mtime_ns == 10**18 + 7
                assert os.path.samefile(root / "links/one", root / "links/two")
                tool = (root / "tool").stat()
                assert (tool.st_mode & 0o7777, tool.st_uid, tool.st_gid) == (0o4755, 12, 34)
                assert os.getxattr(root / "tool", "security.capability") == CAPABILITY
                assert os.getxattr(root / "tool", "trusted.note") == b"kept"
                assert (root / "null").stat().st_rdev == os.makedev(1, 3)
                sparse = (root / "sparse").stat()
                assert (sparse.st_size, sparse.st_blocks * 512 < MIB) == (4 * MIB + 3, True)

    on_driver(place, tmp_path, body)


def change(root: Path, place: str) -> None:
    """What a container may do to its root."""
    if place != "fuse-overlayfs":  # 1.10 cannot copy a device for a new mode: EIO
        (root / "null").chmod(0o600)
    (root / "etc/passwd").write_text("toor")
    os.utime(root / "etc/passwd", ns=(10**18, 10**18 + 7))  # as large and as old as before
    for new in ("new/deep/file", "new/other"):  # fuse-overlayfs writes times later than it says
        os.utime(text(root / new, "y" * 700), ns=(10**18, 10**18 + 1))
    (root / "opaque/shown").unlink()
    os.unlink(root / "becomes_file")
    (root / "becomes_file").mkdir()
    if place != "fuse-overlayfs":  # 1.10 parts the names of a file of a layer
        os.link(root / "links/one", root / "links/three")
    os.rename(root / "becomes_directory/inside", root / "moved")
    os.setxattr(root / "tool", "trusted.note", b"changed")
    os.mkdir(root / "empty", 0o1777)
    os.symlink("nowhere", root / "dangling")


def changed_container(
    snapshotter: DifferenceSnapshotter, root: Path, place: str
) -> dict[str, tuple[object, ...]]:
    """Make a container of the image, change what it shows, and return the facts of that."""
    snapshotter.prepare("container", make_image(snapshotter))
    with mounted(snapshotter.mounts("container"), root):
        change(root, place)
        return facts(root)


@every_driver
def test_what_a_container_writes_survives_its_end_and_a_restart(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            expected = changed_container(snapshotter, top / "root", place)
            snapshotter.trim("container")
        with opened(place, top / "snapshots") as snapshotter:
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert facts(root) == expected
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert facts(root) == expected

    on_driver(place, tmp_path, body)


@every_driver
def test_what_a_container_wrote_is_a_layer(tmp_path: Path, place: str) -> None:
    """Committed, it shows the same on another container, and holds nothing that is the image's."""

    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            expected = changed_container(snapshotter, top / "root", place)
            written = Path(snapshotter.layer("container").path)
            assert is_whiteout((written / "opaque/shown").lstat())
            assert is_whiteout((written / "becomes_directory/inside").lstat())
            assert not names(written) & {"fifo", "sparse", "link", "etc/gone", "old"}
            if place != "fuse-overlayfs":
                assert os.path.samefile(written / "links/three", written / "links/one")
            snapshotter.commit("container", "third")
            assert snapshotter.stat("third").kind is Kind.COMMITTED
            snapshotter.prepare("other", "third")
            with mounted(snapshotter.mounts("other"), top / "root") as root:
                assert facts(root) == expected

    on_driver(place, tmp_path, body)


@every_driver
def test_what_a_container_wrote_is_read_without_a_mount(tmp_path: Path, place: str) -> None:
    """As ``docker diff``, ``commit`` and ``export`` read it: no driver's own marks are files."""

    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            expected = changed_container(snapshotter, top / "root", place)
            with open_snapshot(snapshotter, "container") as pair:
                assert shown(pair.now) == expected.keys()
                layer = b"".join(
                    pack_changes(pair.now, pair.before, is_laid_over=pair.is_laid_over)
                )
                exported = b"".join(pack_tree(pair.now))
        assert b"new/deep/file" in layer
        for mark in (b".wh..wh.", b"fuseoverlayfs", b"trusted.overlay", b"trusted.cais"):
            assert (mark in layer, mark in exported) == (False, False), mark

    on_driver(place, tmp_path, body)


def shown(tree: MergedTree) -> set[str]:
    pending, found = [tree.root()], {"."}
    while pending:
        for entry in tree.children(pending.pop()):
            found.add(entry.path.removeprefix("./"))
            pending += [entry] if entry.is_directory else []
    return found


@every_driver
def test_what_was_written_before_the_first_mount_counts(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.prepare("container", make_image(snapshotter))
            own = Path(snapshotter.layer("container").path)
            text(own / "etc/passwd", "toor")
            (own / "etc").chmod(0o711)
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert (root / "etc/passwd").read_text() == "toor"
                text(root / "opaque/new")  # no directory of the others changes
            written = Path(snapshotter.layer("container").path)
            assert (written / "etc/passwd").read_text() == "toor"
            snapshotter.trim("container")
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert (root / "etc/passwd").read_text() == "toor"
                assert (root / "etc").stat().st_mode & 0o777 == 0o711
                assert (root / "opaque/new").exists()

    on_driver(place, tmp_path, body)


@pytest.mark.parametrize("place", ["btrfs", "vfs on btrfs"])
def test_subvolumes_that_a_container_made_go_with_it(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.prepare("container", make_image(snapshotter))
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                make_subvolumes(root / "links")
                assert (root / "links/frozen/inner").is_dir()
            snapshotter.remove("container")
            snapshotter.remove("second")
        assert os.listdir(top / "snapshots/trash") == []
        assert os.listdir(top / "snapshots/trees") == []

    on_driver(place, tmp_path, body)


def make_subvolumes(directory: Path) -> None:
    """Make one in another, with files, and a read-only snapshot of it."""
    fd = os.open(directory, os.O_RDONLY)
    btrfs.create_subvolume(fd, "own")
    text(directory / "own/inner/deep/file")
    own_fd = os.open(directory / "own", os.O_RDONLY)
    btrfs.create_snapshot(own_fd, fd, "frozen", read_only=True)
    btrfs.create_subvolume(own_fd, "nested")
    text(directory / "own/nested/file")
    for each in (own_fd, fd):
        os.close(each)


@every_driver
def test_usage_is_what_was_written(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.prepare("container", make_image(snapshotter))
            with mounted(snapshotter.mounts("container"), top / "root") as root:
                assert snapshotter.usage("container").size_bytes == 0
                text(root / "new/file", "x" * 5000)
                os.link(root / "new/file", root / "new/again")
                (root / "tool").unlink()
                assert snapshotter.usage("container").size_bytes == 5000
            assert snapshotter.usage("container").size_bytes == 5000
            snapshotter.trim("container")
            assert snapshotter.usage("container").size_bytes == 5000

    on_driver(place, tmp_path, body)


@every_driver
def test_containers_share_their_image_and_nothing_else(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            image = make_image(snapshotter)
            for key in ("a", "b"):
                snapshotter.prepare(key, image)
            with (
                mounted(snapshotter.mounts("a"), top / "a") as one,
                mounted(snapshotter.mounts("b"), top / "b") as two,
            ):
                text(one / "own")
                (one / "etc/passwd").write_text("changed")
                assert not (two / "own").exists()
                assert (two / "etc/passwd").read_text() == "root"
            snapshotter.prepare("c", image)
            with mounted(snapshotter.mounts("c"), top / "c") as three:
                assert (three / "etc/passwd").read_text() == "root"

    on_driver(place, tmp_path, body)


@every_driver
def test_a_view_cannot_be_written(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.view("view", make_image(snapshotter))
            with mounted(snapshotter.mounts("view"), top / "root") as root:
                assert (root / "etc/passwd").read_text() == "root"
                with pytest.raises(OSError, match="Read-only"):
                    text(root / "etc/new")

    on_driver(place, tmp_path, body)


@every_driver
def test_a_snapshot_in_use_can_be_removed(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            snapshotter.prepare("container", make_image(snapshotter))
            with (
                mounted(snapshotter.mounts("container"), top / "root") as root,
                (root / "etc/passwd").open() as held,
            ):
                snapshotter.remove("container")
                assert held.read() == "root"
            snapshotter.remove("second")
            snapshotter.remove("base")
        for name in ("trash", "work", "trees"):
            assert os.listdir(top / "snapshots" / name) == []

    on_driver(place, tmp_path, body)


@every_driver
@pytest.mark.timeout(600)
def test_a_thousand_snapshots(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        with opened(place, top / "snapshots") as snapshotter:
            layer(snapshotter, "image", None, lambda path: (path / "file").touch())
            layer(snapshotter, "upper", "image", lambda path: (path / "other").touch())
            for number in range(1000):
                snapshotter.prepare(f"c{number}", "upper")
            for number in range(0, 1000, 100):
                snapshotter.mounts(f"c{number}", ephemeral=True)
        with opened(place, top / "snapshots") as snapshotter:
            assert len(list(snapshotter.walk())) == 1002
            with mounted(snapshotter.mounts("c999"), top / "root") as root:
                assert names(root) == {"file", "other"}
            for number in range(1000):
                snapshotter.remove(f"c{number}")
        assert len(os.listdir(top / "snapshots/trees")) <= 1  # the image's

    on_driver(place, tmp_path, body)
