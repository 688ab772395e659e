"""What the daemon's own options say about registries. Imports nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cais.registry.proxies import NO_PROXIES, Proxies

DEFAULT_DOWNLOADS = 3
DEFAULT_UPLOADS = 5


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Beside the rules of ``registries.toml``."""

    file: Path = Path("/etc/cais/registries.toml")
    policy_file: Path = Path("/etc/cais/policy.toml")
    """Which images may be pulled: see ``images.policy``."""

    mirrors: tuple[str, ...] = ()
    """Of docker.io, as URLs."""

    insecure: tuple[str, ...] = ()
    """``host:port`` or networks in CIDR form, besides this machine's own."""

    takes_foreign: tuple[str, ...] = ()
    """Registries, or networks of them, that foreign layers may be pushed to."""

    certificates: tuple[Path, ...] = (Path("/etc/docker/certs.d"), Path("/etc/cais/certs.d"))
    proxies: Proxies = NO_PROXIES
    downloads: int = DEFAULT_DOWNLOADS
    """Layers fetched at once, by all pulls together."""

    uploads: int = DEFAULT_UPLOADS
    """Layers sent at once, by one push."""
