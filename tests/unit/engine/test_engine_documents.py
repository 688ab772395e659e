"""How records are written down, and the copies of them."""

import zlib
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from cais.engine.copies import Copies
from cais.engine.documents import pack_record, unpack_record
from cais.engine.records import ContainerRecord
from cais.errors import DataLossError
from cais.spec.container import ContainerConfig, HostConfig


def record(container_id: str = "a" * 64, name: str = "/web") -> ContainerRecord:
    return ContainerRecord(
        id=container_id,
        name=name,
        created_at_ns=5,
        image_id="sha256:" + "1" * 64,
        image_ref="busybox",
        parent="sha256:" + "2" * 64,
        path="true",
        args=[],
        config=ContainerConfig(hostname="aaaa", env=["PATH=/bin"]),
        host_config=HostConfig(),
    )


def test_a_record_comes_back_and_is_small() -> None:
    packed = pack_record(record())
    assert unpack_record(packed) == record()
    assert len(packed) < 512


def test_plain_json_is_read() -> None:
    assert unpack_record(msgspec.json.encode(record())) == record()


def test_the_dictionary_is_part_of_the_format() -> None:
    """A stored document can be read with the very bytes it was written with and no others."""
    dictionary = files("cais.engine").joinpath("data/document.zdict").read_bytes()
    assert zlib.adler32(dictionary) == 562121881


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"garbage", pack_record(record())[:-5], zlib.compress(b"[]")],
)
def test_damage_is_said(damaged: bytes) -> None:
    with pytest.raises(DataLossError, match="cannot be read"):
        unpack_record(damaged)


def test_copies_match_the_records(tmp_path: Path) -> None:
    copies = Copies.open(tmp_path / "copies.db")
    first, second, third = (record(letter * 64, f"/{letter}") for letter in "abc")
    for one in (first, second):
        copies.put(one)
    copies.match([second, third])
    assert copies.load() == [second, third]
    copies.delete(second.id)
    copies.close()
    reopened = Copies.open(tmp_path / "copies.db")
    assert reopened.load() == [third]
    reopened.close()


def test_a_damaged_file_of_copies_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "copies.db").write_bytes(b"garbage" * 1000)
    copies = Copies.open(tmp_path / "copies.db")
    assert copies.load() == []
    copies.put(record())
    copies.close()
