"""Hearing that the packet filter was changed: the kernel announces every nftables transaction.

Spec: linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES (Linux 3.14); netlink(7).
"""

from __future__ import annotations

import errno
import socket

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_BLOCK_BYTES = 65536


class NftablesChanges:
    """A subscription in the network namespace of the thread that makes it; ``close`` it.

    What is announced does not matter here: somebody, perhaps ourselves, changed something.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN; EPROTONOSUPPORT or ENOENT, a kernel without nftables.

    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor; readable when there was a change."""
        return self._socket.fileno()

    def forget(self) -> None:
        """Drop what was announced so far: call before looking at the rules."""
        while True:
            try:
                self._socket.recv(_BLOCK_BYTES)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:  # there was more than it could hold
                    raise

    def close(self) -> None:
        """End the subscription; idempotent."""
        self._socket.close()
