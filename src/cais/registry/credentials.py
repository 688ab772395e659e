"""A user's secret for one registry. Apart, because who only passes it on needs no HTTP client."""

from __future__ import annotations

from typing import NamedTuple


class Credentials(NamedTuple):
    """A user's secret for one registry; all empty: anonymous."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ...)"

    @property
    def is_anonymous(self) -> bool:
        """Whether there is nothing to prove who it is."""
        return not (self.password or self.identity_token or self.registry_token)


ANONYMOUS = Credentials()
