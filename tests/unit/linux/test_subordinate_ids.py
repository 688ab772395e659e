"""/etc/subuid and /etc/subgid, as Docker reads them."""

from pathlib import Path

import pytest

from cais.errors import InvalidArgumentError
from cais.linux.subordinate_ids import all_ranges, load_ranges

TEXT = "# a comment\n\nann:100000:65536\nbob:200000:10\n 7:300000:5 \nann:400000:1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "subuid"
    path.write_text(TEXT)
    return path


def test_by_name_in_the_order_of_the_file(file: Path) -> None:
    assert load_ranges(str(file), "ann", 5) == [(100_000, 65_536), (400_000, 1)]
    assert load_ranges(str(file), "carl", 5) == []


def test_those_of_the_number_come_first(file: Path) -> None:
    assert load_ranges(str(file), "ann", 7) == [(300_000, 5), (100_000, 65_536), (400_000, 1)]


def test_of_everybody(file: Path) -> None:
    assert len(all_ranges(str(file))) == 4
    assert all_ranges(str(file.parent / "absent")) == []
    with pytest.raises(FileNotFoundError):
        load_ranges(str(file.parent / "absent"), "ann", 5)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ann:1", "Cannot parse subuid/gid information: Format not correct for"),
        ("ann:1:2:3", "Cannot parse subuid/gid information: Format not correct for"),
        ("ann:x:2", "String to int conversion failed during subuid/gid parsing of"),
        ("ann:1:-2", "String to int conversion failed during subuid/gid parsing of"),
        ("ann:4294967290:10", "there are no such ids"),
    ],
)
def test_malformed_lines(file: Path, line: str, text: str) -> None:
    file.write_text(f"{TEXT}{line}\n")
    with pytest.raises(InvalidArgumentError, match=text):
        load_ranges(str(file), "bob", 5)
