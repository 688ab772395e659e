"""What every command shares: the client, made (and its daemon started) when first needed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from cais.cli.launch import Roots, ensure_daemon
from cais.client import Address, Client
from cais.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Session:
    """One invocation of ``cais``.

    Args:
        environment: where ``CAIS_HOST``, ``DOCKER_HOST``, ``CAIS_DATA_ROOT`` and
            ``CAIS_EXEC_ROOT`` are looked up.
        host: ``--host``; wins over the environment.
        data_root: ``--data-root``.
        exec_root: ``--exec-root``.

    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        host: str | None = None,
        data_root: str | None = None,
        exec_root: str | None = None,
    ) -> None:
        self.roots = Roots.choose(
            data_root or environment.get("CAIS_DATA_ROOT"),
            exec_root or environment.get("CAIS_EXEC_ROOT"),
        )
        self._own_host = host or environment.get("CAIS_HOST")
        self._docker_host = environment.get("DOCKER_HOST")
        self._wants_tls = bool(
            environment.get("DOCKER_TLS_VERIFY") or environment.get("DOCKER_TLS")
        )

    @functools.cached_property
    def address(self) -> Address:
        """Where the daemon listens, or shall.

        Raises:
            UnsupportedError: TCP with TLS: nothing may be sent in the clear instead.

        """
        text = self._own_host or (None if self.roots.chosen else self._docker_host)
        address = Address.parse(text) if text else Address(self.roots.socket_path)
        if address.path is None and self._wants_tls:
            raise UnsupportedError(
                f"TLS (DOCKER_TLS_VERIFY) to {address} is not supported by this version of the "
                "cais command line; the docker command line can, or use a unix socket"
            )
        return address

    @property
    def may_start(self) -> bool:
        """Whether a daemon may be started there: DOCKER_HOST names somebody else's."""
        named_elsewhere = self._docker_host and not self._own_host and not self.roots.chosen
        return self.address.path is not None and not named_elsewhere

    @functools.cached_property
    def client(self) -> Client:
        """A client of a daemon that answers; starts ``caisd`` if none does and we may.

        Raises:
            UnavailableError: no daemon answers.

        """
        client = Client(self.address)
        if self.may_start:
            ensure_daemon(client, self.roots)
        return client


pass_session = click.make_pass_decorator(Session)
