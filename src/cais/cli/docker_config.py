"""The credentials the docker command line keeps: its ``config.json`` and credential helpers.

Spec: docker CLI documentation, "docker login" (credential stores, helpers).
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

HUB = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[a-z0-9-]+")
_HELPER_S = 30


def registry_auth(environment: Mapping[str, str], domain: str) -> str:
    """Return ``X-Registry-Auth`` for a registry; of nobody when nothing is known.

    Args:
        environment: where ``DOCKER_CONFIG`` and ``HOME`` are looked up.
        domain: the registry in an image's full name.

    Raises:
        InvalidArgumentError: the configuration cannot be read, or names a helper by a path.

    """
    server = HUB if domain == "docker.io" else domain
    config = _load(environment)
    helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
    found = _ask(helper, server) if helper else None
    found = found or _from_file(config, server)
    return base64.urlsafe_b64encode(json.dumps(found).encode()).decode()


def _load(environment: Mapping[str, str]) -> dict[str, Any]:
    directory = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '/root')}/.docker"
    path = os.path.join(directory, "config.json")
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"cannot read {path}: {error}") from error
    return document if isinstance(document, dict) else {}


def _from_file(config: Mapping[str, Any], server: str) -> dict[str, str]:
    entry = (config.get("auths") or {}).get(server) or {}
    found = {"serveraddress": server}
    if token := entry.get("identitytoken"):
        return {**found, "identitytoken": token}
    if encoded := entry.get("auth"):
        username, _, password = base64.b64decode(encoded).decode().partition(":")
        return {**found, "username": username, "password": password}
    return found


def _ask(helper: str, server: str) -> dict[str, str] | None:
    """Ask ``docker-credential-<helper>``; None: it knows nothing."""
    if not _HELPER.fullmatch(helper):
        raise InvalidArgumentError(f"invalid credential helper name {helper[:64]!r}")
    try:
        answer = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=server,
            capture_output=True,
            text=True,
            check=False,
            timeout=_HELPER_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidArgumentError(f"docker-credential-{helper}: {error}") from error
    if answer.returncode != 0:
        return None
    found = json.loads(answer.stdout)
    username, secret = found.get("Username", ""), found.get("Secret", "")
    if username == "<token>":
        return {"serveraddress": server, "identitytoken": secret}
    return {"serveraddress": server, "username": username, "password": secret}
