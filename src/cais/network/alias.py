"""The alias of an interface says whose it is; it is all the state the network keeps.

    cais/<owner>/bridge                                  the default bridge
    cais/<owner>/<container id>/<address>/<prefix len>   the host end of a container's veth pair

``owner`` is drawn from the data root: engines that share a network namespace leave each other's
interfaces alone.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VethAlias:
    """Whose interface this is and which address its other end has."""

    container_id: str
    address: str
    prefix_len: int


def owner_of(data_root: str) -> str:
    """Return the eight hex digits that stand for a data root."""
    return hashlib.sha256(os.fsencode(os.path.abspath(data_root))).hexdigest()[:8]  # noqa: PTH100


def bridge_alias(owner: str) -> str:
    """Return the alias of the default bridge."""
    return f"cais/{owner}/bridge"


def veth_alias(owner: str, veth: VethAlias) -> str:
    """Return the alias of the host end of a veth pair."""
    return f"cais/{owner}/{veth.container_id}/{veth.address}/{veth.prefix_len}"


def parse_veth_alias(owner: str, alias: str) -> VethAlias | None:
    """Return what ``veth_alias`` was made from; None for any other alias."""
    match alias.split("/"):
        case ["cais", found, container_id, address, prefix_len] if found == owner:
            return VethAlias(container_id, address, int(prefix_len))
    return None


def interface_name(owner: str) -> str:
    """Return a new name for a host interface, 15 characters: the kernel's limit."""
    return f"cais{owner[:4]}{secrets.token_hex(4)[:7]}"
