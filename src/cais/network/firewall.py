"""What our bridges need of the packet filter: one nftables table of ours, replaced as a whole.

    raw-prerouting     drop what comes from elsewhere straight to a container's address: a
                       neighbour may not route into the bridge, whatever the FORWARD policy
    filter-forward     to the bridge: answers and its own traffic, nothing unasked
    nat-postrouting    masquerade what leaves the bridge

When forwarding was off until we turned it on, the forward chain drops what is not ours: the host
did not route for others before and does not start to. Rules of others are never touched.
"""

import ipaddress
from dataclasses import dataclass

from cais.linux.nftables import Nftables, NftablesError
from cais.network.errors import NetworkUnavailableError


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """A bridge as the packet filter sees it."""

    name: str
    subnet: ipaddress.IPv4Network
    gateway: str


class Firewall:
    """Owner of the table ``cais-<owner>``. ``apply`` twice is the same as once."""

    def __init__(self, owner: str) -> None:
        """Args: owner tells the tables of several engines in one namespace apart."""
        self.table = f"cais-{owner}"
        self._nftables: Nftables | None = None
        self._listing: str | None = None  # the table as the kernel shows it after ``apply``

    def apply(self, rules: BridgeRules, *, drop_foreign: bool) -> None:
        """Make the table what ``rules`` says, in one transaction.

        Raises:
            NetworkUnavailableError: no libnftables, or the kernel refuses.

        """
        self._run(ruleset(self.table, rules, drop_foreign=drop_foreign))
        self._listing = self._run(f"list table ip {self.table}")

    def is_intact(self) -> bool:
        """Tell whether the table is still as ``apply`` left it; True if it never succeeded."""
        if self._listing is None:
            return True
        try:
            return self._run(f"list table ip {self.table}") == self._listing
        except NetworkUnavailableError:
            return False

    def remove(self) -> None:
        """Remove the table. Idempotent."""
        self._listing = None
        self._run(f"table ip {self.table}\ndelete table ip {self.table}\n")

    def close(self) -> None:
        """Free the library's context; the table stays. Idempotent."""
        if self._nftables is not None:
            self._nftables.close()
            self._nftables = None

    def _run(self, commands: str) -> str:
        try:
            if self._nftables is None:
                self._nftables = Nftables()
            return self._nftables.run(commands)
        except NftablesError as exc:
            raise NetworkUnavailableError(f"packet filter: {exc}") from exc


def ruleset(table: str, rules: BridgeRules, *, drop_foreign: bool) -> str:
    """Return the commands that replace the whole table.

    The first line makes the table if there is none, so that ``delete`` cannot fail.
    """
    bridge = f'"{rules.name}"'
    policy = "drop" if drop_foreign else "accept"
    return f"""table ip {table}
delete table ip {table}
table ip {table} {{
    chain raw-prerouting {{
        type filter hook prerouting priority raw; policy accept;
        ip daddr {rules.subnet} ip daddr != {rules.gateway} iifname != {{ "lo", {bridge} }} drop
    }}
    chain filter-forward {{
        type filter hook forward priority filter; policy {policy};
        oifname {bridge} iifname {bridge} accept
        oifname {bridge} ct state established,related accept
        oifname {bridge} drop
        iifname {bridge} accept
    }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {rules.subnet} oifname != {bridge} masquerade
    }}
}}
"""
