"""Platforms and which of them run here."""

import pytest

from cais.spec.platform import (
    InvalidPlatformError,
    Platform,
    decode_platform,
    encode_platform,
    host_platform,
    normal_architecture,
    parse_platform,
)


def test_what_is_left_out_is_the_hosts() -> None:
    assert parse_platform("linux") == host_platform()
    assert str(parse_platform("Linux/x86_64")) == "linux/amd64"
    assert str(parse_platform("linux/arm/v6")) == "linux/arm/v6"
    assert str(parse_platform("linux/aarch64")) == "linux/arm64"
    assert normal_architecture("armv7l") == ("arm", "v7")


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "li nux", "linux/../x", "l\n"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidPlatformError):
        parse_platform(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bogus", '"bogus": unknown operating system or architecture: invalid argument'),
        ("linux/", '"" is an invalid component of "linux/": platform specifier component must'),
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
    ],
)
def test_what_is_said_of_it(text: str, said: str) -> None:
    with pytest.raises(InvalidPlatformError) as refused:
        parse_platform(text)
    assert str(refused.value).startswith(said)


def test_an_architecture_alone() -> None:
    assert str(parse_platform("arm64")) == "linux/arm64"
    assert str(parse_platform("x86_64")) == "linux/amd64"
    assert str(parse_platform("armhf")) == "linux/arm/v7"
    assert parse_platform("windows").os == "windows"


@pytest.mark.parametrize(
    ("image", "host", "runs"),
    [
        (Platform("linux", "amd64"), Platform("linux", "amd64"), True),
        (Platform("linux", "arm64"), Platform("linux", "amd64"), False),
        (Platform("windows", "amd64"), Platform("linux", "amd64"), False),
        (Platform("linux", "arm64", "v8"), Platform("linux", "arm64"), True),
        (Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7"), True),
        (Platform("linux", "arm", "v7"), Platform("linux", "arm", "v6"), False),
        (Platform("linux", "arm"), Platform("linux", "arm", "v7"), True),
    ],
)
def test_what_runs_where(image: Platform, host: Platform, runs: bool) -> None:
    assert image.runs_on(host) is runs


@pytest.mark.parametrize(
    ("image", "wanted", "provides"),
    [
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_what_provides_what(image: str, wanted: str, provides: bool) -> None:
    assert parse_platform(image).provides(parse_platform(wanted)) is provides


def test_the_json_form() -> None:
    text = encode_platform("linux/arm/v6")
    assert text == '{"architecture":"arm","os":"linux","variant":"v6"}'
    assert decode_platform(text) == Platform("linux", "arm", "v6")
    assert decode_platform(encode_platform("linux/arm64")) == Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linux/arm64", "failed to parse platform: "),
        ("[]", "failed to parse platform: "),
        ('{"os":1,"architecture":"x"}', "failed to parse platform: "),
        ('{"os":"linux"}', "both OS and Architecture must be provided"),
        ('{"os":"li nux","architecture":"x"}', "is an invalid component"),
    ],
)
def test_json_that_is_no_platform(text: str, said: str) -> None:
    with pytest.raises(InvalidPlatformError, match=said):
        decode_platform(text)
