"""``docker system df``: what images, containers and volumes take on the disk.

Every size is in blocks that are allocated, as ``du`` counts, and everything is counted once:

- images: their blobs (layers as they came, manifests, configurations) and their unpacked layers.
  ``LayersSize`` is all of them together, an image's ``Size`` its own, ``SharedSize`` what other
  images have as well;
- containers: what each has written (``SizeRw``), overlayfs's scratch directory, and its logs;
- volumes: their data.

The sum is what ``du`` says of the data root without the engine's own files: databases and what is
being received, deleted or kept apart right now. It differs from ``docker images`` and
``docker ps --size``, which tell the lengths of files and nothing of blobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.footprint import container_disk_use
from cais.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection

    from cais.engine.containers import Containers
    from cais.engine.core import Core
    from cais.engine.images import Images
    from cais.engine.volumes import Volumes

    Document = dict[str, Any]

KINDS = ("container", "image", "volume", "build-cache")


class DiskUse:
    """``/system/df``."""

    def __init__(
        self, core: Core, containers: Containers, images: Images, volumes: Volumes
    ) -> None:
        self._core = core
        self._containers = containers
        self._images = images
        self._volumes = volumes

    async def report(self, kinds: Collection[str] = KINDS) -> Document:
        """Return the document of ``GET /system/df``.

        Args:
            kinds: of objects to measure; None stands for the lists of the others.

        Raises:
            InvalidArgumentError: no such kind.

        """
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidArgumentError(f"unknown object type: {kind}")
        layers_size, images = await self._images.disk_use() if "image" in kinds else (0, None)
        return {
            "LayersSize": layers_size,
            "Images": images,
            "Containers": await self._list_containers() if "container" in kinds else None,
            "Volumes": await self._list_volumes() if "volume" in kinds else None,
            "BuildCache": [] if "build-cache" in kinds else None,
        }

    async def _list_containers(self) -> list[Document]:
        documents = await self._containers.list(all=True, size=True)
        for document in documents:
            own_bytes = await self._core.threads.run(container_disk_use, self._core, document["Id"])
            document["SizeRootFs"] += own_bytes - document["SizeRw"]
            document["SizeRw"] = own_bytes
        return documents

    async def _list_volumes(self) -> list[Document]:
        documents: list[Document] = (await self._volumes.list())["Volumes"]
        for document in documents:
            name = document["Name"]
            document["UsageData"] = {
                "RefCount": len(self._core.volume_users(name)),
                "Size": await self._core.threads.run(self._volume_bytes, name),
            }
        return documents

    def _volume_bytes(self, name: str) -> int:
        try:
            return self._core.volumes.usage(name)
        except NotFoundError:
            return 0  # removed meanwhile
