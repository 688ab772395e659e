"""Where a daemon listens, in the spelling of ``DOCKER_HOST``."""

from __future__ import annotations

import socket
from typing import NamedTuple

from cais.errors import InvalidArgumentError, UnavailableError, UnsupportedError


class Address(NamedTuple):
    """A unix socket (``path``) or a TCP endpoint (``host`` and ``port``)."""

    path: str | None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address ``unix:///path`` or ``tcp://host:port`` names.

        Raises:
            InvalidArgumentError: malformed.
            UnsupportedError: another scheme (``ssh://``, ``npipe://``, ``fd://``).

        """
        scheme, separator, rest = text.partition("://")
        if not separator or not rest:
            raise InvalidArgumentError(f"unable to parse docker host `{text}`")
        if scheme == "unix":
            return cls(rest)
        if scheme != "tcp":
            raise UnsupportedError(f"unsupported protocol scheme {scheme!r} in {text!r}")
        host, _, port = rest.rstrip("/").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InvalidArgumentError(f"unable to parse docker host `{text}`")
        return cls(None, host.strip("[]"), int(port))

    def connect(self, timeout_s: float = 10) -> socket.socket:
        """Return a connected socket without a timeout; the caller closes it.

        Raises:
            UnavailableError: nobody answers there.

        """
        kind = socket.AF_UNIX if self.path is not None else socket.AF_INET
        connection = socket.socket(kind)
        try:
            if self.path is None:
                connection.close()
                connection = socket.create_connection((self.host, self.port), timeout_s)
            else:
                connection.settimeout(timeout_s)
                connection.connect(self.path)
        except OSError as error:
            connection.close()
            raise UnavailableError(
                f"cannot connect to the daemon at {self}: {error.strerror or error}"
            ) from error
        connection.settimeout(None)
        return connection

    def __str__(self) -> str:
        """Return the spelling :meth:`parse` takes."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"
