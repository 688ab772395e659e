"""Decode the Engine API bodies that describe a container, and encode what describes one.

Decoding is as forgiving as Docker's Go structs and no more: unknown members are ignored, a null
member counts as absent, ``Cmd`` and ``Entrypoint`` may be one string; wrong types, numbers outside
their Go type, duplicate keys and NaN are refused.

Spec: docker-engine-api v1.51, the bodies of /containers/create, /containers/{id}/update and
/containers/{id}/exec.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from cais.errors import InvalidArgumentError
from cais.spec import strict_json
from cais.spec.container import (
    ContainerConfig,
    CreateBody,
    ExecBody,
    HostConfig,
    NetworkingConfig,
    UpdateBody,
)
from cais.spec.conversion import convert

LIMIT_BYTES = 16 * 1024 * 1024
T = TypeVar("T", bound=Struct)

# Members whose keys are the user's own: a null in there is a value, not an absent member.
_FREE_MAPS = frozenset(
    (
        *("ExposedPorts", "Volumes", "PortBindings", "EndpointsConfig"),
        *("Labels", "Sysctls", "Tmpfs", "StorageOpt", "Annotations", "DriverOpts"),
        *("Options", "Config"),
    )
)
_TEXT_MAPS = _FREE_MAPS - {"ExposedPorts", "Volumes", "PortBindings", "EndpointsConfig"}
# What Docker leaves out when it is empty (Go's omitempty); everything else is always there.
_OMIT_EMPTY = frozenset(
    (
        *("ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress"),
        *("StopSignal", "StopTimeout", "Shell", "Mounts", "StorageOpt", "Tmpfs", "Sysctls"),
        *("Runtime", "Init", "Annotations", "BindOptions", "VolumeOptions", "TmpfsOptions"),
        *("ImageOptions", "Consistency", "Interval", "Timeout", "StartPeriod", "StartInterval"),
        *("Retries", "Test", "KernelMemory", "KernelMemoryTCP"),
    )
)


def parse_create_body(text: bytes) -> CreateBody:
    """Decode a creation request.

    Raises:
        InvalidArgumentError: with the member and what is wrong with it.

    """
    document = _loads(text)
    return CreateBody(
        config=_convert(document, ContainerConfig, "$"),
        host_config=_convert(document.get("HostConfig", {}), HostConfig, "$.HostConfig"),
        networking_config=_convert(
            document.get("NetworkingConfig", {}), NetworkingConfig, "$.NetworkingConfig"
        ),
    )


def parse_update_body(text: bytes) -> UpdateBody:
    """Decode an update request. InvalidArgumentError: with the member and what is wrong."""
    return _convert(_loads(text), UpdateBody, "$")


def parse_exec_body(text: bytes) -> ExecBody:
    """Decode an exec request. InvalidArgumentError: with the member and what is wrong."""
    return _convert(_loads(text), ExecBody, "$")


def to_document(value: Struct) -> dict[str, Any]:
    """Return the API's JSON form: every member, but for those Docker leaves out when empty."""
    document: dict[str, Any] = msgspec.to_builtins(value)
    return _without_empty(document)


def _loads(text: bytes) -> dict[str, Any]:
    document = _without_nulls(strict_json.loads(text, LIMIT_BYTES))
    if not isinstance(document, dict):
        raise InvalidArgumentError("invalid JSON: the body must be an object")
    for name in ("Cmd", "Entrypoint"):
        if isinstance(document.get(name), str):
            document[name] = [document[name]]
    return document


def _convert(document: Any, kind: type[T], where: str) -> T:  # noqa: ANN401 - any JSON value
    try:
        return convert(document, kind)
    except msgspec.ValidationError as exc:
        text = str(exc).replace("`$", f"`{where}")
        raise InvalidArgumentError(f"invalid JSON: {text[:300]}") from exc


def _without_nulls(value: Any, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Drop null members of structs; in free maps keep them, as "" where the values are text."""
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    if not isinstance(value, dict):
        return value
    if name in _FREE_MAPS:
        empty = "" if name in _TEXT_MAPS else None
        return {
            key: empty if member is None else _without_nulls(member)
            for key, member in value.items()
        }
    return {key: _without_nulls(member, key) for key, member in value.items() if member is not None}


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_empty(value) if name in ("Healthcheck", "HostConfig") and value else value
        for name, value in document.items()
        if value or name not in _OMIT_EMPTY or (name == "Init" and value is not None)
    }
