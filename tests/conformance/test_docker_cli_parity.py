"""Small things in which Docker's own daemon was caught behaving differently from ours."""

import re

import pytest

from cais.testing.daemon import TestDaemon


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (("--group-add", "777"), "groups=0(root),777"),
        (("-u", "nobody", "--group-add", "5"), "groups=5,50(staff),65534(nobody)"),
        (("-u", "99999", "--group-add", "staff"), "groups=0(root),50(staff)"),
    ],
)
def test_additional_groups(daemon: TestDaemon, options: tuple[str, ...], groups: str) -> None:
    assert daemon.docker("run", "--rm", *options, "busybox", "id").stdout.rstrip().endswith(groups)


def test_an_unknown_additional_group_is_refused_to_root_too(daemon: TestDaemon) -> None:
    result = daemon.docker("run", "--rm", "--group-add", "nosuch", "busybox", check=False)
    assert result.returncode == 125
    assert re.search(
        "Unable to find group nosuch: no matching entries in group file", result.stderr
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-u", "nosuch"), "daemon: unable to find user nosuch: no matching entries in passwd"),
        (("--volumes-from", "nosuch"), "daemon: No such container: nosuch"),
    ],
)
def test_texts_without_the_runtime_in_them(
    daemon: TestDaemon, options: tuple[str, ...], said: str
) -> None:
    result = daemon.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert result.returncode == 125
    assert said in result.stderr
    assert "Unable to find image" not in result.stderr
