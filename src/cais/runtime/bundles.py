"""The documents of a bundle, as they are read: ``config.json``, ``cais.json``, an exec's.

Spec: OCI runtime-spec 1.2, bundle.md; docs/architecture.md 3.2 for the other two.
"""

from __future__ import annotations

import os
import sys

from cais.errors import InvalidArgumentError, NotFoundError
from cais.spec import strict_json
from cais.spec.runtime import CONFIG_LIMIT_BYTES, parse_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cais.spec.runtime import Config


def load_config(bundle: str) -> Config:
    """Read ``config.json`` of a bundle."""
    config = parse_config(_read(f"{bundle}/config.json"))
    for part in ("process", "root"):
        if part not in config:
            raise InvalidArgumentError(f"config.json has no {part}")
    return config


def load_extras(bundle: str) -> Mapping[str, Any]:
    """Read ``cais.json`` of a bundle; empty when there is none."""
    try:
        extras = strict_json.loads(_read(f"{bundle}/cais.json"))
    except NotFoundError:
        return {}
    if not isinstance(extras, dict):
        raise InvalidArgumentError("cais.json is not an object")
    return extras


def load_exec(path: str) -> dict[str, Any]:
    """Read an exec's document, ``{"process": ..., "user": ...}``; the process is not checked."""
    document = strict_json.loads(_read(path), CONFIG_LIMIT_BYTES)
    if not isinstance(document, dict) or not isinstance(document.get("process"), dict):
        raise InvalidArgumentError("the exec document has no process")
    return document


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size  # 0: a pipe, or a file of /proc
            return file.read(min(size or sys.maxsize, CONFIG_LIMIT_BYTES) + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
