"""libnftables in process, and the table it is used for."""

import errno
import ipaddress
import os
import subprocess

import pytest

from cais.linux.nftables import Nftables, NftablesError
from cais.network.errors import NetworkUnavailableError
from cais.network.firewall import BridgeRules, Firewall
from cais.testing.isolation import isolated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
RULES = BridgeRules("docker0", ipaddress.IPv4Network("172.17.0.0/16"), "172.17.0.1")


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def test_a_text_is_applied_as_a_whole_or_not_at_all() -> None:
    def body() -> None:
        with Nftables() as nftables:
            nftables.run("add table ip one\nadd chain ip one c\n")
            assert nftables.run("list tables") == "table ip one\n"
            with pytest.raises(NftablesError, match="No such file or directory") as refused:
                nftables.run("add table ip two\nadd rule ip absent c accept\n")
            assert refused.value.errno == errno.ENOENT
            with pytest.raises(NftablesError, match="syntax error"):
                nftables.run("add table ip three {")
            assert nftables.run("list tables") == "table ip one\n"

    isolated(body)


def test_the_table_replaces_itself_and_nothing_else() -> None:
    def body() -> None:
        nft("add table ip others")
        firewall = Firewall("0123abcd")
        firewall.apply(RULES, drop_foreign=True)
        first = nft("list", "ruleset")
        firewall.apply(RULES, drop_foreign=True)
        assert nft("list", "ruleset") == first
        nft("add rule ip cais-0123abcd filter-forward accept")
        firewall.apply(RULES, drop_foreign=False)
        assert nft("list", "ruleset") == first.replace("policy drop", "policy accept")
        firewall.remove()
        firewall.remove()
        assert nft("list", "ruleset") == "table ip others {\n}\n"
        firewall.close()

    isolated(body)


def test_a_flushed_table_comes_back_with_the_next_apply() -> None:
    def body() -> None:
        firewall = Firewall("0123abcd")
        firewall.apply(RULES, drop_foreign=False)
        before = nft("list", "ruleset")
        nft("flush", "ruleset")
        firewall.apply(RULES, drop_foreign=False)
        assert nft("list", "ruleset") == before
        firewall.close()

    isolated(body)


def test_odd_bridge_names_stay_one_word() -> None:
    def body() -> None:
        firewall = Firewall("0123abcd")
        rules = BridgeRules("br-1.x@y", RULES.subnet, RULES.gateway)
        firewall.apply(rules, drop_foreign=False)
        assert 'iifname "br-1.x@y" accept' in nft("list", "ruleset")
        with pytest.raises(NetworkUnavailableError, match="packet filter"):
            firewall.apply(BridgeRules('a"; drop', RULES.subnet, ""), drop_foreign=False)
        firewall.close()

    isolated(body)
