"""Property tests: a tree to a layer to a tree again, equal in every attribute.

CAIS_ROUND_TRIPS says how many random trees (``make test-round-trips``: 1,000).
"""

import gzip
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cais.images.layer_tree import LayerTree
from cais.images.layer_writer import pack_changes
from cais.images.unpack import Limits, unpack
from cais.snapshots.merged import open_stack
from cais.spec.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from cais.testing.image_store import config_of, hex_digest
from cais.testing.isolation import isolated
from cais.testing.random_trees import Description, RandomTree, describe, differences

ROUNDS = int(os.environ.get("CAIS_ROUND_TRIPS", "100"))
SHORT = "CAIS_ROUND_TRIPS" not in os.environ
pytestmark = pytest.mark.timeout(180 + 5 * ROUNDS)


def rounds(directory: Path, body: Callable[[Path, int], None], *, every: int = 1) -> None:
    """Run ``body`` for each seed in a directory of its own, all in one isolated child.

    In the short form only one in ``every`` is run.
    """

    def run() -> None:
        for seed in range(0, ROUNDS, every if SHORT else 1):
            place = directory / str(seed)
            place.mkdir()
            try:
                body(place, seed)
            except BaseException as failure:
                raise AssertionError(f"seed {seed}") from failure
            shutil.rmtree(place)

    isolated(run, timeout_s=120 + 5 * ROUNDS)


def made(path: Path, seed: int) -> Path:
    path.mkdir()
    RandomTree(os.fspath(path), seed).fill()
    return path


def packed(tree: Path) -> bytes:
    with open_stack([os.fspath(tree)]) as stack:
        return b"".join(pack_changes(stack, None, is_laid_over=False))


def unpacked(layer: bytes, path: Path, *lowers: Path) -> Path:
    path.mkdir(exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY

    def open_lowers() -> list[int]:
        return [os.open(each, flags) for each in lowers]

    with LayerTree(os.open(path, flags), open_lowers if lowers else None) as tree:
        unpack(io.BytesIO(layer), tree, Limits(), is_verified=True)
    return path


def with_root_of(path: Path, other: Path) -> Path:
    """Make a directory with the owner and mode of another one, as snapshotters do."""
    path.mkdir()
    os.chown(path, other.stat().st_uid, other.stat().st_gid)
    path.chmod(other.stat().st_mode & 0o7777)
    return path


@contextmanager
def overlay(upper: Path, *lowers: Path, target: Path, write: bool) -> Iterator[str]:
    for path in (upper, target, target.with_name("work")):
        path.mkdir(exist_ok=True)
    layers = ":".join(map(str, lowers if write else (upper, *lowers)))
    options = f"lowerdir={layers},index=off,metacopy=off,redirect_dir=nofollow"
    if write:
        options += f",volatile,upperdir={upper},workdir={target.with_name('work')}"
        shutil.rmtree(target.with_name("work") / "work", ignore_errors=True)
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", target], check=True)
    try:
        yield str(target)
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_tree_survives_its_layer(tmp_path: Path) -> None:
    def body(place: Path, seed: int) -> None:
        tree = made(place / "tree", seed)
        layer = packed(tree)
        copy = unpacked(layer, place / "copy")
        assert not differences(describe(str(copy)), describe(str(tree)))
        assert packed(copy) == layer, "the same tree, other bytes"

    rounds(tmp_path, body)


def test_gnu_tar_reads_what_we_write(tmp_path: Path) -> None:
    def body(place: Path, seed: int) -> None:
        tree = made(place / "tree", seed)
        copy = place / "copy"
        copy.mkdir()
        command = ("tar", "-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", copy)
        subprocess.run(command, input=packed(tree), check=True)
        assert not differences(describe(str(copy)), describe(str(tree)))

    rounds(tmp_path, body, every=5)


def test_changes_in_an_overlay_survive_their_layer(tmp_path: Path) -> None:
    def body(place: Path, seed: int) -> None:
        base = made(place / "base", seed)
        with overlay(place / "upper", base, target=place / "merged", write=True) as merged:
            RandomTree(merged, seed + 1_000_000).change()
            expected = describe(merged, root_time=False)
        stack = [str(place / "upper"), str(base)]
        with open_stack(stack) as now, open_stack(stack[1:]) as before:
            layer = b"".join(pack_changes(now, before, is_laid_over=True))
        unpacked(layer, place / "copy", base)
        with overlay(place / "copy", base, target=place / "merged", write=False) as merged:
            assert not differences(describe(merged, root_time=False), expected)

    rounds(tmp_path, body)


def test_changes_of_a_whole_copy_survive_their_layer(tmp_path: Path) -> None:
    """As a snapshotter without overlayfs has them: both trees are complete."""

    def body(place: Path, seed: int) -> None:
        base, copy = made(place / "base", seed), place / "copy"
        subprocess.run(["cp", "-a", base, copy], check=True)
        RandomTree(str(copy), seed + 4_000_000).change()
        with open_stack([str(copy)]) as now, open_stack([str(base)]) as before:
            layer = b"".join(pack_changes(now, before, is_laid_over=False))
        unpacked(layer, with_root_of(place / "upper", base), base)
        with overlay(place / "upper", base, target=place / "merged", write=False) as merged:
            found = describe(merged, root_time=False)
        expected = describe(str(copy), root_time=False)
        assert found.pop(".")[:3] == expected.pop(".")[:3]
        assert not differences(found, expected)

    rounds(tmp_path, body, every=5)


def layout(path: Path, layers: Sequence[bytes]) -> None:
    """Write an OCI layout with one image, ``1``."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hex_digest(content)
        (blobs / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    config = blob(config_of([hex_digest(layer) for layer in layers]), OCI_CONFIG)
    descriptors = [blob(layer, OCI_LAYER) for layer in layers]
    manifest = {"schemaVersion": 2, "config": config, "layers": descriptors}
    named = blob(json.dumps(manifest).encode(), OCI_MANIFEST)
    named["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def topmost_layer(path: Path, tag: str) -> bytes:
    """Return the layer umoci has added, plain; nothing if it found nothing to add."""
    for named in json.loads((path / "index.json").read_text())["manifests"]:
        if named["annotations"]["org.opencontainers.image.ref.name"] == tag:
            layer = json.loads(blob_of(path, named["digest"]))["layers"][-1]
            is_ours = layer["mediaType"] == OCI_LAYER
            return b"" if is_ours else gzip.decompress(blob_of(path, layer["digest"]))
    raise AssertionError(tag)


def blob_of(path: Path, digest: str) -> bytes:
    return (path / "blobs" / digest.replace(":", "/")).read_bytes()


def umoci(*arguments: str | Path) -> None:
    subprocess.run(["umoci", *arguments], check=True, capture_output=True)


def test_umoci_applies_our_layers_and_we_apply_its_layers(tmp_path: Path) -> None:
    def body(place: Path, seed: int) -> None:
        base = made(place / "base", seed)
        with overlay(place / "upper", base, target=place / "merged", write=True) as merged:
            RandomTree(merged, seed + 2_000_000).change()
            expected = describe(merged, root_time=False)
        stack = [str(place / "upper"), str(base)]
        with open_stack(stack) as now, open_stack(stack[1:]) as before:
            change = b"".join(pack_changes(now, before, is_laid_over=True))
        layout(place / "layout", [packed(base), *([change] if change else [])])
        umoci("unpack", "--image", place / "layout:1", place / "bundle")
        rootfs = place / "bundle/rootfs"
        assert not differences(describe(str(rootfs), root_time=False), expected)

        RandomTree(str(rootfs), seed + 3_000_000).change()
        expected = describe(str(rootfs), root_time=False)
        umoci("repack", "--image", place / "layout:2", place / "bundle")
        theirs = unpacked(topmost_layer(place / "layout", "2"), place / "theirs", *map(Path, stack))
        with overlay(theirs, *map(Path, stack), target=place / "merged", write=False) as merged:
            found = describe(merged, root_time=False)
        assert not differences(as_umoci_keeps(found), as_umoci_keeps(expected))

    rounds(tmp_path, body, every=10)


def as_umoci_keeps(found: Description) -> Description:
    """Leave out times of directories that lost a file, and links to files it thinks unchanged."""
    return {name: (*facts[:3], *facts[5:]) for name, facts in found.items()}
