"""Images as the Engine API shows them.

Spec: Docker Engine API 1.51, ``ImageInspect``, ``ImageHistoryResponseItem``, ``ImageSummary``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.images.records import format_time, parse_time_ns
from cais.snapshots.snapshotter import STACKING_DRIVERS, SnapshotNotFoundError
from cais.spec import strict_json

if TYPE_CHECKING:
    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore

_MISSING = "<missing>"
# Clients read these without asking whether they are there.
_CONFIG: dict[str, Any] = {
    **dict.fromkeys(("User", "WorkingDir"), ""),
    **dict.fromkeys(("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes")),
}


def summary(record: ImageRecord, *, containers: int, shared_size: int) -> dict[str, Any]:
    """Return an item of ``GET /images/json``; a size of -1 was not computed."""
    config = record.config.config
    return {
        "Id": record.id,
        "ParentId": record.parent or "",
        "RepoTags": list(record.repo_tags),
        "RepoDigests": list(record.repo_digests),
        "Created": record.created_ns // 1_000_000_000,
        "Size": record.size_bytes,
        "SharedSize": shared_size,
        "Labels": (config.labels if config else None) or None,
        "Containers": containers or -1,
    }


def inspect(store: ImageStore, record: ImageRecord) -> dict[str, Any]:
    """Return the document of ``GET /images/{name}/json``."""
    config = record.config
    raw = strict_json.loads(store.read_config(record.id))
    document = {
        "Id": record.id,
        "RepoTags": list(record.repo_tags),
        "RepoDigests": list(record.repo_digests),
        "Parent": record.parent or "",
        "Comment": config.comment or (config.history[-1].comment if config.history else ""),
        "Created": record.created,
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": {**_CONFIG, **(raw.get("config") or {})},
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": record.size_bytes,
        "GraphDriver": {"Data": _graph_data(store, record), "Name": store.snapshotter.driver},
        "RootFS": {"Type": "layers", "Layers": list(record.diff_ids)},
        "Metadata": {"LastTagTime": format_time(record.tagged_ns)},
    }
    for optional in ("Variant", "OsVersion"):
        if not document[optional]:
            del document[optional]
    return document


def history(store: ImageStore, record: ImageRecord) -> list[dict[str, Any]]:
    """Return the steps an image was made by, the newest first.

    Only images that exist here have an id in it: the image itself and, for one built here, its
    parents.
    """
    steps = _steps(record)
    steps.reverse()
    owner: ImageRecord | None = record
    for step in steps:
        if owner is None:
            break
        step["Id"] = owner.id
        step["Tags"] = list(owner.repo_tags) or None
        owner = store.get(owner.parent) if owner.parent else None
    return steps


def _steps(record: ImageRecord) -> list[dict[str, Any]]:
    sizes = iter([layer.size_bytes for layer in record.layers])
    return [
        {
            "Id": _MISSING,
            "Created": parse_time_ns(step.created) // 1_000_000_000,
            "CreatedBy": step.created_by,
            "Tags": None,
            "Size": 0 if step.empty_layer else next(sizes, 0),
            "Comment": step.comment,
        }
        for step in record.config.history or ()
    ]


def _graph_data(store: ImageStore, record: ImageRecord) -> dict[str, str] | None:
    if record.chain_id is None or store.snapshotter.driver not in STACKING_DRIVERS:
        return None
    try:
        layer = store.snapshotter.layer(record.chain_id)
    except SnapshotNotFoundError:
        return None
    data = {"UpperDir": layer.path}
    if layer.lowers:
        data["LowerDir"] = ":".join(layer.lowers)
    return data
