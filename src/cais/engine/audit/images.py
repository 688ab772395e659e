"""Whether every image has all it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.engine.audit.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.engine.audit.data_root import DataRoot


def check_images(root: DataRoot) -> Iterator[Finding]:
    """Look for the blobs and layers of each image; whoever lacks one can be pulled again."""
    layers = {each.key for each in root.stored_snapshots() if each.is_layer}
    for image in root.images():
        parts = {"configuration": image.id, "manifest": image.manifest}
        parts |= {f"layer {n}": each.blob for n, each in enumerate(image.layers, start=1)}
        for part, digest in parts.items():
            if not (root.blobs / digest.removeprefix("sha256:")).exists():
                yield Finding(
                    f"image {image.title}",
                    f"lacks blob {digest} (its {part}): pull or load it again",
                )
        for number, layer in enumerate(image.layers, start=1):
            if layer.chain_id not in layers:
                yield Finding(
                    f"image {image.title}",
                    f"has layer {number} ({layer.chain_id}) not unpacked: pull or load it again",
                )
