"""Digests, diff ids and chain ids."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.spec.digest import (
    DiffId,
    Digest,
    InvalidDigestError,
    chain_id,
    chain_ids,
    digest_of,
    encoded,
    parse_digest,
    short,
)

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEX)
def test_a_digest_reads_as_it_was_written(hexadecimal: str) -> None:
    digest = parse_digest(f"sha256:{hexadecimal}")
    assert digest == f"sha256:{hexadecimal}"
    assert encoded(digest) == hexadecimal
    assert short(digest) == hexadecimal[:12] == short(hexadecimal)


@given(st.binary())
def test_a_digest_is_the_sha256_of_the_bytes(content: bytes) -> None:
    assert parse_digest(digest_of(content)) == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    "text",
    [
        "", "sha256:", "sha256", f"sha256:{'a' * 63}", f"sha256:{'a' * 65}", f"sha256:{'A' * 64}",
        f"sha256:{'g' * 64}", f" sha256:{'a' * 64}", f"sha256:{'a' * 64}\n", "a" * 64,
        f"../sha256:{'a' * 64}", f"sha256:{'a' * 62}/.", "sha256:" + "\u0661" * 64,
    ],
)  # fmt: skip
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigestError, match="invalid digest"):
        parse_digest(text)


@pytest.mark.parametrize("algorithm", ["sha512", "md5", "sha384", "blake3", "multihash+base58"])
def test_other_algorithms_are_named(algorithm: str) -> None:
    with pytest.raises(InvalidDigestError, match=r"^unsupported digest algorithm: "):
        parse_digest(f"{algorithm}:{'a' * 64}")


def test_chain_ids_of_the_specification() -> None:
    """OCI image-spec, config.md: the chain of L0|L1|L2, worked out by hand."""
    layers = [DiffId(digest_of(name)) for name in (b"0", b"1", b"2")]
    first = layers[0]
    second = digest_of(f"{first} {layers[1]}".encode())
    third = digest_of(f"{second} {layers[2]}".encode())
    assert list(chain_ids(layers)) == [first, second, third]
    assert chain_id(layers) == third
    assert chain_id([]) is None


@given(st.lists(HEX, min_size=1, max_size=6))
def test_a_chain_id_depends_on_every_layer_and_their_order(names: list[str]) -> None:
    """config.md: "a ChainID ... is computed by applying each layer in order"."""
    layers = [DiffId(Digest(f"sha256:{name}")) for name in names]
    assert list(chain_ids(layers))[:-1] == list(chain_ids(layers[:-1]))
    changed = [*layers[:-1], DiffId(digest_of(b"other"))]
    assert chain_id(changed) != chain_id(layers)
