"""The daemon's options about registries, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.api.daemon_flags import InvalidFlagError, Values
from cais.errors import InvalidArgumentError
from cais.registry.options import DEFAULT_DOWNLOADS, DEFAULT_UPLOADS, RegistryOptions
from cais.registry.origin import check_mirror
from cais.registry.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Mapping


def registry_options(values: Values, environment: Mapping[str, str]) -> RegistryOptions:
    """Check the values that are about registries.

    Args:
        values: of the command line and the configuration file.
        environment: has the proxies that are not among the values.

    Raises:
        InvalidFlagError: as dockerd says it.

    """
    return RegistryOptions(
        mirrors=tuple(map(check_mirror, values.get("registry-mirror", []))),
        insecure=tuple(values.get("insecure-registry", [])),
        takes_foreign=tuple(values.get("allow-nondistributable-artifacts", [])),
        proxies=_proxies(values, environment),
        downloads=_count(values, "downloads", DEFAULT_DOWNLOADS),
        uploads=_count(values, "uploads", DEFAULT_UPLOADS),
    )


def _proxies(values: Values, environment: Mapping[str, str]) -> Proxies:
    found = Proxies.from_environment(environment)
    proxies = Proxies(
        values.get("http-proxy") or found.http,
        values.get("https-proxy") or found.https,
        values.get("no-proxy") or found.no,
    )
    try:
        return proxies.check()
    except InvalidArgumentError as exc:
        raise InvalidFlagError(str(exc)) from exc


def _count(values: Values, what: str, default: int) -> int:
    """Return how many at once; 0 means the default, as to dockerd."""
    count: int = values.get(f"max-concurrent-{what}", 0)
    if count < 0:
        raise InvalidFlagError(f"invalid max concurrent {what}: {count}")
    return count or default
