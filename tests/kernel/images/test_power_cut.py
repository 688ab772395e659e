"""SECURITY.md F-5: what was loaded when the power goes is there, whole, when it comes back.

The data root is an ext4 of its own; EXT4_IOC_SHUTDOWN without a flush of its journal takes the
power away. The control run leaves the sync out and has to lose data, or the test proves nothing.
"""

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cais.images import archive
from cais.snapshots import differences
from cais.testing.image_store import docker_archive, open_image_store
from cais.testing.interruptions import cut_power, make_disk
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar

FILES = {f"file{number}": os.urandom(3000) for number in range(200)}
ARCHIVE = docker_archive([tar([Member(name, content) for name, content in FILES.items()])])


def lose_power_after(work: Callable[[], None], mounted: Path) -> None:
    """Run ``work`` in a child that ends when the power does."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            work()
            cut_power(mounted)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def contents(root: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(root).iterdir()}


@pytest.mark.parametrize("synced", [True, False], ids=["as-it-is", "without-the-sync"])
def test_a_loaded_image_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool
) -> None:
    if not synced:
        monkeypatch.setattr(differences, "sync_filesystem", lambda _: None)
    disk, mounted = tmp_path / "disk", tmp_path / "mounted"
    mounted.mkdir()
    make_disk(disk, 64 * 1024 * 1024)

    def load() -> None:
        store = open_image_store(mounted)
        archive.load(io.BytesIO(ARCHIVE), store.__enter__())

    def body() -> None:
        subprocess.run(["mount", "-o", "loop", disk, mounted], check=True)
        lose_power_after(load, mounted)
        subprocess.run(["umount", mounted], check=True)
        subprocess.run(["mount", "-o", "loop", disk, mounted], check=True)
        try:
            with open_image_store(mounted) as store:
                record = store.resolve("test")
                unpacked = contents(store.snapshotter.layer(record.chain_id or "").path)
                assert (unpacked == FILES) is synced
                for layer in record.layers:
                    with store.content.open_blob(layer.blob) as blob:
                        store.content.read(layer.blob, len(blob.read()))  # verifies
                store.delete("test")
        finally:
            subprocess.run(["umount", mounted], check=True)

    isolated(body)
