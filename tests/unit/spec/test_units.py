"""Sizes, as Docker reads and prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import InvalidArgumentError
from cais.spec.units import from_human_size, human_size, ram_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("32", 32),
        ("32b", 32),
        ("32B", 32),
        ("32k", 32768),
        ("32K", 32768),
        ("32kb", 32768),
        ("32Kib", 32768),
        ("32KIB", 32768),
        ("64m", 67108864),
        ("32Mb", 33554432),
        ("1.5g", 1610612736),
        ("32.5kB", 33280),
        ("32.5 kB", 33280),
        ("0.5k", 512),
        (".3kB", 307),
        ("1t", 2**40),
        ("1PiB", 2**50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_binary_sizes(text: str, size: int) -> None:
    assert ram_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hello",
        "-1",
        "+1",
        "1e3",
        "0x10",
        "1_000",
        "٣m",
        "1  ",
        " 1",
        "1  k",
        "1.",
        "1.k",
        "32bb",
        "32km",
        "1n",
        "1kbi",
        "1,5g",
        "9223372036854775808",
        "99999999p",
        "1e30",
        "m",
        "--1",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid size: '"):
        ram_bytes(text)


def test_a_hostile_size_is_answered_briefly() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        ram_bytes("9" * 1_000_000)
    assert len(str(refused.value)) < 100


def test_decimal_sizes() -> None:
    assert from_human_size("32kb") == 32000
    assert from_human_size("1.5GB") == 1_500_000_000


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB"), (4.26e9, "4.26GB")],
)
def test_printed_decimal(size: float, text: str) -> None:
    assert human_size(size) == text


def test_printed_with_the_precision_of_listings() -> None:
    assert human_size(4_261_550, 3) == "4.26MB"
    assert human_size(123_456_789, 3) == "123MB"


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_whole_numbers_stay_exact(size: int) -> None:
    assert ram_bytes(str(size)) == size
