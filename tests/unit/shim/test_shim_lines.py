"""The log format against a plain model of Docker's: one byte, one line at a time."""

import json
import os
import random

import pytest

from cais.shim.lines import MAX_LINE, Lines, escape, format_time

TIME_NS = 1_700_000_000_123_456_789
WHEN = "2023-11-14T22:13:20.123456789Z"


def model_escape(data: bytes) -> bytes:
    """As Docker's encoder: a byte that begins no valid character becomes an escaped U+FFFD."""
    out = []
    while data:
        char = next((c for n in (1, 2, 3, 4) if (c := decoded(data[:n]))), None)
        if char is None:
            out.append("\\ufffd")
            data = data[1:]
            continue
        data = data[len(char.encode()) :]
        if char in '"\\':
            out.append("\\" + char)
        elif char in "\n\r":
            out.append({"\n": "\\n", "\r": "\\r"}[char])
        elif char < " " or char in "<>&\u2028\u2029":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return "".join(out).encode()


def decoded(data: bytes) -> str | None:
    try:
        char = data.decode()
    except UnicodeDecodeError:
        return None
    return char if len(char) == 1 else None


def entry(text: bytes, stream: str = "stdout", when: str = WHEN, attrs: bytes = b"") -> bytes:
    return b'{"log":"%b","stream":"%b",%b"time":"%b"}\n' % (
        model_escape(text),
        stream.encode(),
        attrs,
        when.encode(),
    )


@pytest.mark.parametrize(
    "text",
    [
        b"plain",
        b"",
        b'quote " back \\ slash \\n \\\\ \\udc5c',
        bytes(range(32)) + b"\x7f",
        b"<a href='x'>&amp;</a>",
        "línea … 漢字 🐋 \u2028 \u2029 \ufffd".encode(),
        b"bad \xff\xfe \xc3( \xe2\x82 cut \xe2\x82",
        b"\xed\xa0\x80 surrogate, \xf4\x90\x80\x80 too high, \xc0\x80 overlong",
        b"tab\tand \\t and \x7f and \\" + "é".encode(),
        "\udc5c\udcff".encode("utf-8", "surrogatepass") + b" some text so that it counts as text",
    ],
)
def test_text_is_escaped_as_docker_does(text: bytes) -> None:
    padded = text + b" " * 100  # mostly text, whatever it holds
    assert escape(padded) == model_escape(padded)


def test_any_bytes_are_the_same_json_value_and_one_line() -> None:
    rng = random.Random(7)
    for size in (0, 1, 2, 3, 50, 3000):
        for _ in range(40):
            data = rng.randbytes(size)
            escaped = escape(data)
            assert b"\n" not in escaped
            value = json.loads(b'"' + escaped + b'"')
            # Adjacent broken parts may be one U+FFFD or several where most of it is broken.
            assert _squeezed(value) == _squeezed(data.decode("utf-8", "replace"))


def _squeezed(text: str) -> str:
    while "\ufffd\ufffd" in text:
        text = text.replace("\ufffd\ufffd", "\ufffd")
    return text


def test_mixed_text_is_exact_with_every_kind_of_neighbour() -> None:
    rng = random.Random(3)
    alphabet = [b"\\", b"n", b"t", b"\t", b"\x7f", b'"', b"<", b"\xe2", b"\x82", b"\xac", b"\x00"]
    for _ in range(300):
        data = b"".join(rng.choices(alphabet, k=24)) + b"x" * 400
        assert escape(data) == model_escape(data)


def test_entries_of_one_read_share_its_time_and_a_line_waits_for_its_newline() -> None:
    lines = Lines("stderr", {})
    assert lines.feed(b"one\ntwo\nthr", TIME_NS) == entry(b"one\n", "stderr") + entry(
        b"two\n", "stderr"
    )
    assert lines.feed(b"ee", TIME_NS) == b""
    later = "2023-11-14T22:13:20.12345679Z"
    assert lines.feed(b"\n", TIME_NS + 1) == entry(b"three\n", "stderr", later)
    assert lines.feed(b"no newline", TIME_NS) == b""
    assert lines.finish(TIME_NS) == entry(b"no newline", "stderr")
    assert lines.finish(TIME_NS) == b""


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 40_000])
@pytest.mark.parametrize("step", [1 << 20, 16384, 16383, 4097])
def test_long_lines_are_cut_at_16_kib_and_keep_their_first_time(length: int, step: int) -> None:
    line = b"x" * length
    data = b"before\n" + line + b"\nafter\n"
    lines, out = Lines("stdout", {}), b""
    for start in range(0, len(data), step):
        out += lines.feed(data[start : start + step], TIME_NS + start)
    logged = [json.loads(text) for text in out.splitlines()]
    parts = [
        line[i : i + MAX_LINE].decode() for i in range(0, length - length % MAX_LINE, MAX_LINE)
    ]
    parts.append(line[length - length % MAX_LINE :].decode() + "\n")
    assert [part["log"] for part in logged] == ["before\n", *parts, "after\n"]
    assert len({part["time"] for part in logged[1:-1]}) == 1


def test_a_full_part_is_logged_without_waiting_for_more() -> None:
    lines = Lines("stdout", {})
    assert lines.feed(b"x" * (MAX_LINE - 1), TIME_NS) == b""
    assert lines.feed(b"x", TIME_NS) == entry(b"x" * MAX_LINE)
    assert lines.feed(b"\n", TIME_NS + 1) == entry(b"\n")


def test_split_points_do_not_depend_on_how_it_was_read() -> None:
    rng = random.Random(5)
    data = b"".join(os.urandom(rng.choice([0, 5, 16383, 16384, 20000])) + b"\n" for _ in range(20))
    whole = Lines("stdout", {}).feed(data, TIME_NS)
    piecewise, lines, start = b"", Lines("stdout", {}), 0
    while start < len(data):
        size = rng.choice([1, 100, 16384, 50000])
        piecewise += lines.feed(data[start : start + size], TIME_NS)
        start += size
    assert [len(_squeezed(json.loads(x)["log"])) for x in whole.splitlines()] == [
        len(_squeezed(json.loads(x)["log"])) for x in piecewise.splitlines()
    ]


def test_attributes_stand_sorted_between_stream_and_time() -> None:
    attrs = {"b": "2", "a": 'q"<'}
    expected = entry(b"x\n", attrs=b'"attrs":{"a":"q\\"\\u003c","b":"2"},')
    assert Lines("stdout", attrs).feed(b"x\n", TIME_NS) == expected


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (TIME_NS, WHEN),
    ],
)
def test_time_has_no_zeros_at_its_end(nanoseconds: int, text: str) -> None:
    assert format_time(nanoseconds).decode() == text
