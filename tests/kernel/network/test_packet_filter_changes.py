"""What the kernel announces of the packet filter, and what comes back after it was flushed."""

import os
import select
import subprocess
from pathlib import Path

import pytest

from cais.linux.nftables_changes import NftablesChanges
from cais.network.manager import NetworkManager
from cais.testing.isolation import isolated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def is_readable(changes: NftablesChanges) -> bool:
    return bool(select.select([changes], [], [], 0)[0])


def test_every_transaction_is_announced_and_nothing_else() -> None:
    def body() -> None:
        changes = NftablesChanges()
        assert not is_readable(changes)
        for command in ("add table ip one", "add chain ip one c", "flush ruleset"):
            nft(*command.split())
            assert is_readable(changes)
            changes.forget()
            assert not is_readable(changes)
        nft("list", "ruleset")
        assert not is_readable(changes)
        changes.close()

    isolated(body)


def test_more_changes_than_the_socket_holds_are_a_change() -> None:
    def body() -> None:
        changes = NftablesChanges()
        rules = "".join(
            f"add rule ip t c ip saddr 10.0.{n // 250}.{n % 250} drop\n" for n in range(4000)
        )
        subprocess.run(
            ["nft", "-f", "-"],
            input=f"add table ip t\nadd chain ip t c\n{rules}",
            check=True,
            text=True,
        )
        assert is_readable(changes)
        changes.forget()
        assert not is_readable(changes)
        changes.close()

    isolated(body)


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table ip {table}",
        "flush chain ip {table} filter-forward",
        "add rule ip {table} filter-forward accept",
        "delete chain ip {table} raw-prerouting",
    ],
)
def test_the_table_is_restored_and_others_are_left(tmp_path: Path, damage: str) -> None:
    def body() -> None:
        warnings: list[str] = []
        manager = NetworkManager(
            data_root=str(tmp_path / "data"), exec_root=str(tmp_path / "run"), warn=warnings.append
        )
        manager.setup()
        before = nft("list", "ruleset")
        table = before.split()[2]
        manager.restore()
        assert not warnings
        nft(*damage.format(table=table).split())
        nft("add", "table", "ip", "others")
        manager.restore()
        assert "packet filter table" in warnings[0]
        assert nft("list", "table", "ip", table) == before
        assert "others" in nft("list", "tables")
        manager.teardown(remove_bridge=True)

    isolated(body)
