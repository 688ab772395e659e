"""Platforms and which of them run here."""

import pytest

from cais.spec.platform import (
    InvalidPlatformError,
    Platform,
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
