"""Detach keys, as Docker reads them, and their finding in what is typed."""

from __future__ import annotations

import pytest

from cais.errors import InvalidArgumentError
from cais.spec.detach_keys import DEFAULT_DETACH_KEYS, DetachScanner, parse_detach_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", DEFAULT_DETACH_KEYS),
        ("a,b", b"ab"),
        ("ctrl-],x", b"\x1dx"),
        ("ctrl-@,ctrl-a,ctrl-z,ctrl-[,ctrl-\\,ctrl-^,ctrl-_", b"\0\x01\x1a\x1b\x1c\x1e\x1f"),
        ("", b""),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-P", "ctrl-", "ctrl-pp", "word", "a,,b", "ctrl-1", "é"])
def test_malformed_detach_keys(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid detach keys"):
        parse_detach_keys(text)


def test_the_scanner_holds_back_only_what_may_be_the_keys() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"ab\x10") == (b"ab", False)
    assert scanner.feed(b"c") == (b"\x10c", False)
    assert scanner.feed(b"\x10\x10") == (b"\x10", False)
    assert scanner.feed(b"\x11rest") == (b"", True)
    assert DetachScanner(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
