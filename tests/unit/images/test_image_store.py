"""The image store: names, deletion in Docker's order and words, history, collection.

Layers are empty archives of different length, so nothing here needs a privilege.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cais.errors import InvalidArgumentError
from cais.images import archive
from cais.images.records import ImageInUseError, ImageUse, NewImage, format_time, parse_time_ns
from cais.images.store import ImageNotFoundError, ImageStore
from cais.spec.digest import Digest, ImageId, chain_ids, short
from cais.spec.image import decode_config
from cais.spec.reference import InvalidReferenceError
from cais.testing.image_store import (
    config_of,
    docker_archive,
    hex_digest,
    left_over,
    open_image_store,
)

DIGEST = Digest(f"sha256:{'d' * 64}")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        yield opened


def layer(number: int) -> bytes:
    return bytes(1024 + 512 * number)


def load(store: ImageStore, *names: str, layers: Sequence[int] = (0,), **config: Any) -> ImageId:
    contents = [layer(number) for number in layers]
    document = None
    if config:
        document = config_of([hex_digest(content) for content in contents], **config)
    return archive.load(io.BytesIO(docker_archive(contents, names, config=document)), store)[0].id


def child_of(store: ImageStore, parent: ImageId, author: str) -> ImageId:
    """Register an image built on another, as commit and build will."""
    record = store.get(parent)
    config = config_of([d.removeprefix("sha256:") for d in record.diff_ids], author=author)
    with store.content.leases.open() as lease:
        blob = store.content.write(config, lease)
        image = NewImage(
            ImageId(blob.digest), decode_config(config), record.manifest, record.layers, parent
        )
        store.register([(image, [])])
    return image.id


def test_every_kind_of_reference(store: ImageStore) -> None:
    image_id = load(store, "name:1", "example.com:5000/other:latest")
    store.add_digest(image_id, "name", DIGEST)
    for ref in (
        "name:1", "docker.io/library/name:1", "example.com:5000/other", f"name@{DIGEST}",
        f"name:nonsense@{DIGEST}", image_id, image_id.removeprefix("sha256:"), short(image_id),
        image_id[7:10], image_id[:20],
    ):  # fmt: skip
        assert store.resolve(ref).id == image_id, ref
    record = store.resolve("name:1")
    assert record.repo_tags == ("name:1", "example.com:5000/other:latest")
    assert record.repo_digests == (f"name@{DIGEST}",)


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        ("nope", "No such image: nope:latest"),
        ("nope:1", "No such image: nope:1"),
        ("docker.io/library/nope", "No such image: nope:latest"),
        ("h.io/a/b", "No such image: h.io/a/b:latest"),
        (f"nope@{DIGEST}", f"No such image: nope@{DIGEST}"),
        (DIGEST, f"No such image: {DIGEST}"),
        ("d" * 64, f"No such image: {DIGEST}"),
        ("abcdef", "No such image: abcdef:latest"),
    ],
)
def test_what_is_not_there_in_dockers_words(store: ImageStore, ref: str, text: str) -> None:
    load(store, "name:1")
    with pytest.raises(ImageNotFoundError) as caught:
        store.resolve(ref)
    assert str(caught.value) == text


@pytest.mark.parametrize("ref", ["", "UPPER", "a:b:c", "name:", "../x", "sha256:%"])
def test_what_is_no_reference(store: ImageStore, ref: str) -> None:
    with pytest.raises(InvalidReferenceError, match="invalid reference format"):
        store.resolve(ref)


def test_an_ambiguous_prefix_finds_nothing(store: ImageStore) -> None:
    ids = [load(store, f"n:{n}", author=str(n)) for n in range(17)]  # two start with one digit
    digits = [image_id[7] for image_id in ids]
    ambiguous = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(ImageNotFoundError):
        store.resolve(ambiguous)


def test_the_record(store: ImageStore) -> None:
    record = store.resolve(load(store, "name:1", layers=[0, 1]))
    assert record.chain_id == list(chain_ids(record.diff_ids))[-1]
    assert record.size_bytes == 0
    assert record.config.config is not None
    assert record.config.config.cmd == ["sh"]
    assert record.created == "2026-01-02T03:04:05.678Z"
    assert format_time(record.created_ns) == record.created
    assert record.tagged_ns > record.created_ns


def test_tagging(store: ImageStore) -> None:
    first, second = load(store, "a:1"), load(store, "b:1", author="b")
    assert store.tag("a:1", "new") == "new:latest"
    assert store.tag(first, "new:2", "3") == "new:3"
    assert store.resolve("a:1").repo_tags == ("a:1", "new:3", "new:latest")
    store.tag("b:1", "new")
    assert store.resolve("new").id == second
    assert store.resolve("a:1").repo_tags == ("a:1", "new:3")


def test_what_is_gone_gets_no_name(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may go between being found and being named."""
    gone, other = load(store, "a:1"), load(store, "b:1", author="b")
    store.delete("a:1")
    store.add_digest(other, "b", DIGEST)
    store.add_digest(gone, "b", DIGEST)
    assert store.resolve(f"b@{DIGEST}").id == other
    monkeypatch.setattr(store, "find_id", lambda _: gone)
    with pytest.raises(ImageNotFoundError, match="No such image: a:1"):
        store.tag("a:1", "b", "1")
    monkeypatch.undo()
    assert store.resolve("b:1").id == other


@pytest.mark.parametrize(
    ("repository", "text"),
    [
        ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
        (f"a@{DIGEST}", "refusing to create a tag with a digest reference"),
        ("sha256", "refusing to create an ambiguous tag using digest algorithm as name"),
        ("", "invalid reference format"),
    ],
)
def test_names_an_image_cannot_get(store: ImageStore, repository: str, text: str) -> None:
    load(store, "a:1")
    with pytest.raises(InvalidArgumentError) as caught:
        store.tag("a:1", repository)
    assert str(caught.value) == text
    with pytest.raises(ImageNotFoundError):
        store.tag("nope", "a")


def test_deleting_one_of_two_names_only_untags(store: ImageStore) -> None:
    image_id = load(store, "a:1", "b:1")
    assert store.delete("a:1") == [{"Untagged": "a:1"}]
    assert store.resolve(image_id).repo_tags == ("b:1",)


def test_the_last_name_takes_the_image_its_layers_and_blobs(store: ImageStore) -> None:
    image_id = load(store, "a:1", layers=[0, 1, 2])
    store.add_digest(image_id, "a", DIGEST)
    chains = list(chain_ids(store.resolve("a:1").diff_ids))
    assert store.delete("a:1") == [
        {"Untagged": "a:1"},
        {"Untagged": f"a@{DIGEST}"},
        {"Deleted": image_id},
        *({"Deleted": chain} for chain in reversed(chains)),
    ]
    assert left_over(store) == []


def test_an_id_takes_one_name_with_it(store: ImageStore) -> None:
    image_id = load(store, "a:1")
    entries = store.delete(short(image_id))
    assert entries[:2] == [{"Untagged": "a:1"}, {"Deleted": image_id}]


def test_an_id_with_two_names_must_be_forced(store: ImageStore) -> None:
    image_id = load(store, "a:1", "b:1")
    before = left_over(store)
    with pytest.raises(ImageInUseError) as caught:
        store.delete(image_id)
    assert str(caught.value) == (
        f"conflict: unable to delete {short(image_id)} (must be forced) - "
        "image is referenced in multiple repositories"
    )
    assert left_over(store) == before
    untagged = [{"Untagged": "a:1"}, {"Untagged": "b:1"}, {"Deleted": image_id}]
    assert store.delete(image_id, force=True)[:3] == untagged


def test_shared_layers_stay(store: ImageStore) -> None:
    one = load(store, "one:1", layers=[0, 1])
    load(store, "two:1", layers=[0, 2])
    chains = list(chain_ids(store.resolve("one:1").diff_ids))
    assert store.delete("one:1") == [
        {"Untagged": "one:1"}, {"Deleted": one}, {"Deleted": chains[1]},
    ]  # fmt: skip
    store.snapshotter.stat(chains[0])
    assert store.resolve("two:1").layers


def uses(running: bool) -> Any:
    return lambda _: [ImageUse("c0ffee" + "0" * 58, is_running=running)]


@pytest.mark.parametrize("running", [True, False])
def test_a_used_image_keeps_its_last_name(store: ImageStore, running: bool) -> None:
    image_id = load(store, "a:1")
    with pytest.raises(ImageInUseError) as caught:
        store.delete("a:1", in_use=uses(running))
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:1" (must force) - container '
        f"c0ffee000000 is using its referenced image {short(image_id)}"
    )
    assert store.resolve("a:1").id == image_id


def test_a_used_image_can_lose_one_of_two_names(store: ImageStore) -> None:
    load(store, "a:1", "b:1")
    assert store.delete("a:1", in_use=uses(running=True)) == [{"Untagged": "a:1"}]


def test_forcing_the_name_of_a_running_containers_image_only_untags(store: ImageStore) -> None:
    image_id = load(store, "a:1")
    assert store.delete("a:1", force=True, in_use=uses(running=True)) == [{"Untagged": "a:1"}]
    assert store.resolve(image_id).repo_tags == ()


def test_a_stopped_containers_layers_outlive_the_forced_image(store: ImageStore) -> None:
    image_id = load(store, "a:1", layers=[0])
    chain = store.resolve("a:1").chain_id
    store.snapshotter.prepare("container", chain)
    entries = store.delete("a:1", force=True, in_use=uses(running=False))
    assert entries == [{"Untagged": "a:1"}, {"Deleted": image_id}]
    assert left_over(store) == [chain, "container"]
    store.snapshotter.remove("container")
    store.collect()
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("running", "force", "why"),
    [
        (True, False, "(cannot be forced) - image is being used by running container c0ffee000000"),
        (True, True, "(cannot be forced) - image is being used by running container c0ffee000000"),
        (False, False, "(must be forced) - image is being used by stopped container c0ffee000000"),
    ],
)
def test_a_used_image_by_id(store: ImageStore, running: bool, force: bool, why: str) -> None:
    image_id = load(store, "a:1")
    with pytest.raises(ImageInUseError) as caught:
        store.delete(image_id, force=force, in_use=uses(running))
    assert str(caught.value) == f"conflict: unable to delete {short(image_id)} {why}"
    assert store.resolve("a:1").id == image_id


def test_parents_follow_unless_they_are_needed(store: ImageStore) -> None:
    base = load(store, "base:1")
    middle = child_of(store, base, "middle")
    top = child_of(store, middle, "top")
    assert store.children(base) == [middle]
    with pytest.raises(ImageInUseError, match="image has dependent child images"):
        store.delete(middle, force=True)
    assert store.delete("base:1") == [{"Untagged": "base:1"}]  # children keep it
    store.tag(base, "base:1")
    assert store.delete(top) == [{"Deleted": top}, {"Deleted": middle}]
    assert store.resolve("base:1").id == base


def test_parents_stay_without_prune(store: ImageStore) -> None:
    middle = child_of(store, load(store, "base:1"), "middle")
    top = child_of(store, middle, "top")
    assert store.delete(top, prune=False) == [{"Deleted": top}]
    assert store.resolve(middle).id == middle


def test_what_a_prune_chose_some_time_ago_is_all_it_takes(store: ImageStore) -> None:
    chosen = store.get(load(store, "a:1"))
    load(store, "a:1", author="pulled since")
    before = left_over(store)
    assert store.delete("a:1", chosen=chosen) == []
    store.tag(chosen.id, "b:1")
    assert store.delete(chosen.id, chosen=chosen) == []
    assert store.delete("b:1", chosen=chosen) == []
    assert left_over(store) == before
    chosen = store.get(chosen.id)
    assert store.delete("b:1", chosen=chosen)[-1] == {"Deleted": chosen.id}


def test_a_name_that_moves_on_at_the_last_moment_is_not_taken(store: ImageStore) -> None:
    first, second = load(store, "a:1"), load(store, "b:1", author="b")

    def move(_: ImageId) -> Sequence[ImageUse]:
        store.tag(second, "a:1")
        return ()

    assert store.delete("a:1", in_use=move) == [{"Deleted": first}]
    assert store.resolve("a:1").id == second


@pytest.mark.parametrize("by_id", [True, False])
def test_an_image_named_at_the_last_moment_stays(store: ImageStore, by_id: bool) -> None:
    image_id = load(store, "a:1")

    def name(_: ImageId) -> Sequence[ImageUse]:
        store.tag(image_id, "b:1")
        return ()

    ref = image_id if by_id else "a:1"
    assert store.delete(ref, in_use=name) == [{"Untagged": "a:1"}]
    assert store.resolve("b:1").repo_tags == ("b:1",)


def test_history_is_newest_first_and_names_what_is_here(store: ImageStore) -> None:
    history = [
        {"created": "2026-01-01T00:00:00Z", "created_by": "ADD"},
        {"created": "2026-01-01T00:00:01Z", "created_by": "CMD", "empty_layer": True,
         "comment": "c"},
    ]  # fmt: skip
    image_id = load(store, "a:1", "a:2", history=history)
    assert store.history("a:1") == [
        {"Id": image_id, "Created": 1767225601, "CreatedBy": "CMD", "Tags": ["a:1", "a:2"],
         "Size": 0, "Comment": "c"},
        {"Id": "<missing>", "Created": 1767225600, "CreatedBy": "ADD", "Tags": None,
         "Size": 0, "Comment": ""},
    ]  # fmt: skip


def test_inspect(store: ImageStore) -> None:
    image_id = load(store, "a:1")
    document = store.inspect("a:1")
    assert document["Id"] == image_id
    assert document["RepoTags"] == ["a:1"]
    nothing = dict.fromkeys(("Entrypoint", "Labels", "OnBuild", "Volumes"))
    assert document["Config"] == {
        "Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "", "WorkingDir": "", **nothing,
    }  # fmt: skip
    assert document["RootFS"] == {
        "Type": "layers", "Layers": list(store.resolve("a:1").diff_ids),
    }  # fmt: skip
    assert document["Created"] == "2026-01-02T03:04:05.678Z"
    assert document["Metadata"]["LastTagTime"].startswith("20")
    assert "Variant" not in document


def test_the_newest_image_is_listed_first(store: ImageStore) -> None:
    times = ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-02T00:00:00.5+01:00"]
    ids = [load(store, f"n:{n}", created=time) for n, time in enumerate(times)]
    assert [record.id for record in store.list()] == [ids[1], ids[2], ids[0]]


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    with open_image_store(tmp_path) as store:
        load(store, "a:1", layers=[0, 1])
        before = store.resolve("a:1"), store.history("a:1"), left_over(store)
    with open_image_store(tmp_path) as store:
        assert (store.resolve("a:1"), store.history("a:1"), left_over(store)) == before


def test_a_start_collects_what_a_crash_left(tmp_path: Path) -> None:
    with open_image_store(tmp_path) as store:
        load(store, "a:1")
        before = left_over(store)
        with store.content.leases.open() as lease:
            store.content.write(b"of an import that did not end", lease)
        store.snapshotter.prepare("import-1", None)
        store.snapshotter.prepare("import-2", None)
        store.snapshotter.commit("import-2", str(DIGEST))
        store.snapshotter.prepare("container", None)
    with open_image_store(tmp_path) as store:
        assert left_over(store) == [*before, "container"]


def test_a_collection_spares_a_running_import(store: ImageStore) -> None:
    with store.content.leases.open() as lease:
        blob = store.content.write(b"needed soon", lease)
        lease.add("import-1")
        store.snapshotter.prepare("import-1", None)
        store.collect()
        assert left_over(store) == [blob.digest, "import-1"]
    store.collect()
    assert left_over(store) == []


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("2026-01-02T03:04:05.123456789Z", 1767323045123456789),
        ("2026-01-02T04:04:05.1+01:00", 1767323045100000000),
        ("0001-01-01T00:00:00Z", 0),
        ("nonsense", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_times(text: str | None, ns: int) -> None:
    assert parse_time_ns(text) == ns
