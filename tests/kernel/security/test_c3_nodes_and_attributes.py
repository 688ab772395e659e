"""SECURITY.md C3: what a layer's device nodes, set-id bits and attributes may be."""

import io
import os
import stat
import subprocess
from pathlib import Path

import pytest

from cais.images.layer_names import InvalidLayerError
from cais.snapshots.snapshotter import Layer
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar
from cais.testing.unpacking import apply_layer

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)


def unpack(root: Path, *members: Member, lowers: tuple[str, ...] = ()) -> None:
    apply_layer(io.BytesIO(tar(members)), Layer(os.fspath(root), lowers))


def test_devices_come_out_as_devices(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        Member("block", kind=b"4", device=(254, 0), mode=0o660, gid=6),
        Member("char", kind=b"3", device=(1, 1), mode=0o640),
        Member("fuse", kind=b"3", device=(10, 229), mode=0o666),
        Member("fifo", kind=b"6", mode=0o604, uid=3),
    )
    facts = {name: os.lstat(tmp_path / name) for name in os.listdir(tmp_path)}
    assert facts["block"].st_mode == stat.S_IFBLK | 0o660
    assert facts["block"].st_rdev == os.makedev(254, 0)
    assert facts["block"].st_gid == 6
    assert facts["char"].st_rdev == os.makedev(1, 1)
    assert facts["fuse"].st_rdev == os.makedev(10, 229)
    assert facts["fifo"].st_mode == stat.S_IFIFO | 0o604
    assert facts["fifo"].st_uid == 3


def test_owner_mode_and_capability_survive_each_other(tmp_path: Path) -> None:
    """chown clears set-id bits and capabilities: it has to come first."""
    unpack(
        tmp_path,
        Member("suid", b"x", mode=0o6755, uid=1000, gid=1000),
        Member("cap", b"x", uid=1000, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
    )
    assert stat.S_IMODE(os.lstat(tmp_path / "suid").st_mode) == 0o6755
    assert os.getxattr(tmp_path / "cap", "security.capability") == CAPABILITY
    assert os.lstat(tmp_path / "cap").st_uid == 1000


@pytest.mark.parametrize(
    "attribute", ["redirect", "opaque", "metacopy", "origin", "impure", "nlink", "protattr", "x"]
)
@pytest.mark.parametrize(
    "space", ["trusted.overlay.", "user.overlay.", "trusted.cais.", "user.fuseoverlayfs."]
)
@pytest.mark.parametrize("kind", [b"0", b"5"], ids=["file", "directory"])
def test_overlay_attributes_are_left_out(
    tmp_path: Path, space: str, attribute: str, kind: bytes
) -> None:
    pax = {f"SCHILY.xattr.{space}{attribute}": "/secret", "SCHILY.xattr.user.kept": "yes"}
    unpack(tmp_path, Member("entry", kind=kind, pax=pax))
    assert os.listxattr(tmp_path / "entry") == ["user.kept"]


def test_a_redirect_of_a_layer_shows_nothing_hidden(tmp_path: Path) -> None:
    """This kernel follows redirects always: a kept attribute would show the deleted directory."""

    def body() -> None:
        upper, lower = tmp_path / "1", tmp_path / "2"
        for directory in (upper, lower, tmp_path / "top", tmp_path / "work", tmp_path / "merged"):
            directory.mkdir()
        (lower / "secret").mkdir()
        (lower / "secret/key").write_text("secret")
        pax = {"SCHILY.xattr.trusted.overlay.redirect": "/secret"}
        unpack(
            upper,
            Member(".wh.secret"),
            Member("bait", kind=b"5", mode=0o755, pax=pax),
            lowers=(os.fspath(lower),),
        )
        options = (
            f"lowerdir={upper}:{lower},upperdir={tmp_path}/top,workdir={tmp_path}/work,"
            "redirect_dir=follow"
        )
        merged = tmp_path / "merged"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
        try:
            assert os.listdir(merged) == ["bait"]
            assert os.listdir(merged / "bait") == []
        finally:
            subprocess.run(["umount", merged], check=True)

    isolated(body)


def test_a_capability_that_cannot_be_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidLayerError, match="'f': Invalid argument"):
        unpack(tmp_path, Member("f", pax={"SCHILY.xattr.security.capability": "nonsense"}))


def test_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        Member("d", kind=b"5", pax={"mtime": "1234567890.123456789"}),
        Member("d/f", b"x", pax={"mtime": "-1.5"}),
        Member("d/l", kind=b"2", link="x", pax={"mtime": "77.000000001"}),
    )
    assert os.lstat(tmp_path / "d").st_mtime_ns == 1234567890123456789
    assert os.lstat(tmp_path / "d/f").st_mtime_ns == -1_500_000_000
    assert os.lstat(tmp_path / "d/l").st_mtime_ns == 77_000_000_001
