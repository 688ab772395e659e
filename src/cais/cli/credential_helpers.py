"""Programs that keep credentials: ``docker-credential-<name>`` and its three verbs.

Spec: docker-credential-helpers, "Development" (get, store, erase).
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from cais.errors import InvalidArgumentError

_NAME = re.compile(r"[a-z0-9-]+")
_WAIT_S = 30
_TOKEN_USER = "<token>"  # noqa: S105 - the name that marks an identity token
_NOT_FOUND = "credentials not found"


class Helper:
    """One helper. InvalidArgumentError: a name that could lead elsewhere than to a helper."""

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(str(name)):
            raise InvalidArgumentError(f"invalid credential helper name {str(name)[:64]!r}")
        self._program = f"docker-credential-{name}"

    def get(self, server: str) -> dict[str, str] | None:
        """Return what it knows of a server, as an ``AuthConfig``; None: nothing."""
        answer = self._run("get", server)
        if answer is None:
            return None
        username, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
        if username == _TOKEN_USER:
            return {"serveraddress": server, "identitytoken": secret}
        return {"serveraddress": server, "username": username, "password": secret}

    def store(self, server: str, auth: dict[str, str]) -> None:
        """Have it keep a user's credentials; an identity token instead of a password."""
        token = auth.get("identitytoken")
        document = {
            "ServerURL": server,
            "Username": _TOKEN_USER if token else auth.get("username", ""),
            "Secret": token or auth.get("password", ""),
        }
        self._run("store", json.dumps(document))

    def erase(self, server: str) -> None:
        """Have it forget a server."""
        self._run("erase", server)

    def _run(self, verb: str, text: str) -> dict[str, Any] | None:
        """Return what it prints, as JSON if it prints any; None: it knows no such server."""
        try:
            done = subprocess.run(
                [self._program, verb],
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=_WAIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InvalidArgumentError(f"{self._program}: {error}") from error
        said = done.stdout.strip()
        if done.returncode:
            if _NOT_FOUND in said or verb == "get":
                return None
            raise InvalidArgumentError(f"{self._program} {verb}: {said or done.stderr.strip()}")
        if verb != "get":
            return {}
        try:
            found = json.loads(said)
        except ValueError as error:
            raise InvalidArgumentError(f"{self._program} {verb}: no JSON") from error
        return found if isinstance(found, dict) else None
