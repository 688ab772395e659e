"""Who somebody of a container is on the host, and the other way round."""

import pytest

from cais.errors import InvalidArgumentError
from cais.spec.identities import UNMAPPED, IdentityMaps

MAPS = IdentityMaps(((0, 100_000, 10), (10, 500, 5)), ((0, 200_000, 20),))


@pytest.mark.parametrize(
    ("inside", "outside"),
    [((0, 0), (100_000, 200_000)), ((9, 19), (100_009, 200_019)), ((14, 1), (504, 200_001))],
)
def test_both_ways(inside: tuple[int, int], outside: tuple[int, int]) -> None:
    assert MAPS.outside(*inside) == outside
    assert MAPS.inside(*outside) == inside


def test_root_is_who_the_first_lines_say() -> None:
    assert MAPS.root == (100_000, 200_000)


@pytest.mark.parametrize("ids", [(15, 0), (0, 20), (1 << 31, 0)])
def test_who_is_nobody_outside(ids: tuple[int, int]) -> None:
    number = max(ids)
    with pytest.raises(InvalidArgumentError) as refused:
        MAPS.outside(*ids)
    assert str(refused.value) == f"Container ID {number} cannot be mapped to a host ID"


def test_who_is_nobody_inside() -> None:
    assert MAPS.inside(0, 0) == MAPS.inside(505, 199_999) == (UNMAPPED, UNMAPPED)


def test_as_the_shim_is_told() -> None:
    assert MAPS.document() == {"uid": [[0, 100_000, 10], [10, 500, 5]], "gid": [[0, 200_000, 20]]}
