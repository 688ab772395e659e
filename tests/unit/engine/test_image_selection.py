"""Which images lists show and prunes take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cais.engine.image_selection import ListSelection, PruneSelection
from cais.errors import InvalidArgumentError
from cais.images.records import ImageRecord
from cais.spec.digest import Digest, ImageId
from cais.spec.image import ContainerConfig, ImageConfig, RootFs

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_NS = 1_800_000_000_000_000_000


def image(
    name: str,
    *,
    tags: Sequence[str] = (),
    digests: Sequence[str] = (),
    parent: str | None = None,
    created_ns: int = NOW_NS,
    labels: dict[str, str] | None = None,
) -> ImageRecord:
    config = ImageConfig(rootfs=RootFs(type="layers"), config=ContainerConfig(labels=labels))
    return ImageRecord(
        ImageId(Digest(name)),
        tuple(tags),
        tuple(digests),
        config,
        (),
        Digest("sha256:0"),
        created_ns,
        0,
        ImageId(Digest(parent)) if parent else None,
    )


IMAGES = [
    image("named", tags=["a:1"], digests=["a@sha256:1"], parent="step"),
    image("by-digest", digests=["b@sha256:2"]),
    image("step"),
    image("loose", created_ns=NOW_NS - 3600 * 10**9, labels={"colour": "red"}),
    image("undated", created_ns=0),
]


def listed(*, show_all: bool = False, **filters: Sequence[str]) -> list[str]:
    by_name = {str(one.id): one for one in IMAGES}
    selection = ListSelection(filters, show_all=show_all)
    return [one.id for one in selection.choose(IMAGES, by_name.__getitem__, NOW_NS)]


def pruned(used: Sequence[str] = (), **filters: Sequence[str]) -> list[str]:
    return [one.id for one in PruneSelection(filters, NOW_NS).choose(IMAGES, used)]


def test_what_others_were_built_on_is_shown_only_with_all() -> None:
    assert listed() == ["named", "by-digest", "loose", "undated"]
    assert listed(show_all=True) == ["named", "by-digest", "step", "loose", "undated"]


def test_dangling_is_without_a_tag() -> None:
    assert listed(dangling=["true"]) == ["by-digest", "loose", "undated"]
    assert listed(dangling=["true"], show_all=True) == ["by-digest", "loose", "undated"]
    assert listed(dangling=["0"]) == ["named", "by-digest"]


def test_moments_and_labels() -> None:
    assert listed(before=["named"]) == ["loose"]
    assert listed(since=["loose"]) == ["named", "by-digest"]
    assert listed(until=["30m"]) == ["loose"]
    assert listed(label=["colour"]) == ["loose"]
    assert listed(**{"label!": ["colour=red"]}) == ["named", "by-digest", "undated"]


def test_references_choose_images_and_what_is_shown_of_them() -> None:
    assert listed(reference=["a"]) == ["named"]
    assert listed(reference=["*"]) == ["named", "by-digest"]
    document = {"RepoTags": ["a:1", "x:1"], "RepoDigests": ["a@sha256:1", "x@sha256:1"]}
    narrowed = ListSelection({"reference": ["a:*"]}, show_all=False).narrow(document)
    assert narrowed == {"RepoTags": ["a:1"], "RepoDigests": []}
    with pytest.raises(InvalidArgumentError, match="syntax error in pattern"):
        ListSelection({"reference": ["["]}, show_all=False)


def test_a_prune_takes_what_nothing_needs() -> None:
    assert pruned() == ["by-digest", "loose", "undated"]
    assert pruned(used=["loose"]) == ["by-digest", "undated"]
    assert pruned(dangling=["false"]) == ["named", "by-digest", "loose", "undated"]
    assert pruned(until=["30m"]) == ["loose"]
    assert pruned(until=["30m"], **{"label!": ["colour"]}) == []


def test_what_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="invalid filter 'reference'"):
        PruneSelection({"reference": ["a"]}, NOW_NS)
    with pytest.raises(InvalidArgumentError, match="more than one until filter specified"):
        PruneSelection({"until": ["1h", "2h"]}, NOW_NS)
    with pytest.raises(InvalidArgumentError, match="invalid filter 'dangling=\\[maybe\\]'"):
        ListSelection({"dangling": ["maybe"]}, show_all=False)
