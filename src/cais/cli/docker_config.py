"""The credentials the docker command line keeps: its ``config.json`` and credential helpers.

Spec: docker CLI documentation, "docker login" (credential stores, helpers).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from cais.cli.credential_helpers import Helper
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"", "docker.io", "index.docker.io"})


def server_of(text: str) -> str:
    """Return under which name credentials of a registry are kept: its host, or Docker's old URL."""
    host = text.partition("://")[2] or text
    host = host.partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def registry_auth(environment: Mapping[str, str], domain: str) -> str:
    """Return ``X-Registry-Auth`` for a registry; of nobody when nothing is known.

    Args:
        environment: where ``DOCKER_CONFIG`` and ``HOME`` are looked up.
        domain: the registry in an image's full name.

    Raises:
        InvalidArgumentError: the configuration cannot be read, or names a helper by a path.

    """
    found = DockerConfig(environment).get(server_of(domain))
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()


class DockerConfig:
    """A user's ``config.json``. InvalidArgumentError: it cannot be read.

    Args:
        environment: where ``DOCKER_CONFIG`` and ``HOME`` are looked up.

    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        home = environment.get("HOME", "/root")
        self._directory = environment.get("DOCKER_CONFIG") or f"{home}/.docker"
        self.path = os.path.join(self._directory, "config.json")
        self._document = self._load()

    def helper(self, server: str) -> Helper | None:
        """Return the program that keeps a server's credentials; None: this file does."""
        name = _section(self._document, "credHelpers").get(server)
        name = name or self._document.get("credsStore")
        return Helper(name) if name else None

    def get(self, server: str) -> dict[str, str]:
        """Return the ``AuthConfig`` for a server; without a secret when none is known."""
        helper = self.helper(server)
        return (helper.get(server) if helper else None) or self._from_file(server)

    def store(self, server: str, auth: dict[str, str]) -> None:
        """Keep a user's credentials."""
        if helper := self.helper(server):
            helper.store(server, auth)
            return
        token = auth.get("identitytoken", "")
        pair = f"{auth.get('username', '')}:{'' if token else auth.get('password', '')}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if token:
            entry["identitytoken"] = token
        self._document["auths"] = {**_section(self._document, "auths"), server: entry}
        self._write()

    def erase(self, server: str) -> None:
        """Forget a server."""
        if helper := self.helper(server):
            helper.erase(server)
        auths = _section(self._document, "auths")
        kept = {name: entry for name, entry in auths.items() if server_of(name) != server}
        if len(kept) != len(auths):
            self._document["auths"] = kept
            self._write()

    def _from_file(self, server: str) -> dict[str, str]:
        auths = _section(self._document, "auths")
        named = [entry for name, entry in auths.items() if server_of(name) == server]
        entry = auths.get(server) or next(iter(named), None)
        entry = entry if isinstance(entry, dict) else {}
        found = {"serveraddress": server}
        for name in ("identitytoken", "registrytoken"):
            if entry.get(name):
                found[name] = entry[name]
        if len(found) == 1 and entry.get("auth"):
            username, password = self._decode(entry["auth"])
            found |= {"username": username, "password": password}
        return found

    def _decode(self, encoded: str) -> tuple[str, str]:
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError, TypeError) as error:
            raise InvalidArgumentError(f"{self.path}: malformed credentials: {error}") from error
        return username, password.rstrip("\0")

    def _load(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                document = json.loads(file.read())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"cannot read {self.path}: {error}") from error
        return document if isinstance(document, dict) else {}

    def _write(self) -> None:
        """Replace the file as a whole; only its user may read it."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        target = os.path.realpath(self.path)  # noqa: TID251 - the user's own; a link stays one
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix="config.json")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(self._document, file, indent="\t")
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    return section if isinstance(section, dict) else {}
