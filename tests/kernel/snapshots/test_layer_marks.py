"""What hides names of lower layers, where the disk takes overlayfs's own marks and where not."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from cais.engine.audit.trees import first_difference
from cais.linux.whiteouts import make_opaque
from cais.snapshots.merged import open_stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def no_overlay_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse as an overlay does that is older than Linux 6.7."""

    def refusing(call: Callable[..., object]) -> Callable[..., object]:
        def attribute_call(target: int, name: str, *args: object, **options: bool) -> object:
            if name.startswith("trusted.overlay."):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return call(target, name, *args, **options)

        return attribute_call

    monkeypatch.setattr(os, "setxattr", refusing(os.setxattr))
    monkeypatch.setattr(os, "getxattr", refusing(os.getxattr))


@pytest.fixture
def stack(tmp_path: Path) -> list[str]:
    """Two layers, each with a file in a directory of both."""
    for layer in ("upper", "lower"):
        (tmp_path / layer / "etc").mkdir(parents=True)
        (tmp_path / layer / "etc" / layer).touch()
    return [str(tmp_path / "upper"), str(tmp_path / "lower")]


def shown_in_etc(stack: list[str]) -> list[str]:
    with open_stack(stack) as tree:
        etc = tree.find("etc")
        assert etc is not None
        return sorted(entry.name for entry in tree.children(etc))


def hide(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        make_opaque(fd)
    finally:
        os.close(fd)


def test_an_opaque_directory_hides_the_layers_below(stack: list[str]) -> None:
    assert shown_in_etc(stack) == ["lower", "upper"]
    hide(f"{stack[0]}/etc")
    assert os.listxattr(f"{stack[0]}/etc") == ["trusted.overlay.opaque"]
    assert shown_in_etc(stack) == ["upper"]


@pytest.mark.usefixtures("no_overlay_attributes")
def test_so_does_one_of_a_disk_without_overlay_attributes(stack: list[str]) -> None:
    assert shown_in_etc(stack) == ["lower", "upper"]
    hide(f"{stack[0]}/etc")
    assert os.listxattr(f"{stack[0]}/etc") == ["trusted.cais.opaque"]
    assert shown_in_etc(stack) == ["upper"]


def test_what_any_user_can_set_hides_nothing(stack: list[str]) -> None:
    """As for the kernel, whose overlayfs reads these with the option ``userxattr`` alone."""
    os.setxattr(f"{stack[0]}/etc", "user.overlay.opaque", b"y")
    assert shown_in_etc(stack) == ["lower", "upper"]


@pytest.mark.parametrize("attribute", ["trusted.overlay.opaque", "trusted.cais.opaque"])
@pytest.mark.parametrize("device", [(0, 0), (0xFFF, 0xFFFFF)])
def test_a_check_takes_one_mark_for_the_other(
    tmp_path: Path, attribute: str, device: tuple[int, int]
) -> None:
    """A layer may have been unpacked by another kernel than it is checked by."""
    for name in ("made", "found"):
        (tmp_path / name / "etc").mkdir(parents=True)
    os.setxattr(tmp_path / "made/etc", "trusted.overlay.opaque", b"y")
    os.mknod(tmp_path / "made/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(tmp_path / "found/gone", stat.S_IFCHR, os.makedev(*device))
    for path in (tmp_path / "made/gone", tmp_path / "found/gone"):
        os.utime(path, ns=(0, 0))
    different = first_difference(tmp_path / "made", tmp_path / "found")
    assert different == "/etc has other extended attributes"
    os.setxattr(tmp_path / "found/etc", attribute, b"y")
    assert first_difference(tmp_path / "made", tmp_path / "found") is None
    os.unlink(tmp_path / "found/gone")
    os.mknod(tmp_path / "found/gone", stat.S_IFCHR, os.makedev(1, 3))
    different = first_difference(tmp_path / "made", tmp_path / "found")
    assert different == f"/gone has device {os.makedev(1, 3)} instead of 0"
