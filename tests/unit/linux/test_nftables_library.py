import pytest

from cais.linux import nftables
from cais.linux.nftables import Nftables, NftablesMissingError


def test_a_host_without_the_library_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_LIBRARY", "libabsent.so.0")
    with pytest.raises(NftablesMissingError, match=r"libabsent\.so\.0"):
        Nftables()
