"""What the daemon's own options say about registries. Imports nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cais.registry.proxies import NO_PROXIES, Proxies

_HUB = "docker.io"
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

    def described(self) -> dict[str, Any]:
        """Return what ``/info`` says of them; of proxies no passwords."""
        networks = [text for text in self.insecure if "/" in text]
        names = [text for text in self.insecure if "/" not in text]
        hub = {
            "Name": _HUB,
            "Mirrors": [f"{mirror.rstrip('/')}/" for mirror in self.mirrors],
            "Secure": True,
            "Official": True,
        }
        others = {
            name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
            for name in names
        }
        proxies = self.proxies.masked()
        return {
            "RegistryConfig": {
                "IndexConfigs": {_HUB: hub, **others},
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
                "Mirrors": hub["Mirrors"] or None,
            },
            "HttpProxy": proxies.http,
            "HttpsProxy": proxies.https,
            "NoProxy": proxies.no,
        }
