"""Platforms: operating system, architecture, variant; and which of several runs here.

Spec: OCI image-spec 1.1, image-index.md "platform"; Go's GOOS and GOARCH names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from cais.errors import InvalidArgumentError
from cais.spec import strict_json

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_JSON_LIMIT_BYTES = 4096
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}
_is_component = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}").fullmatch
_SYSTEMS = frozenset(
    (
        *("aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js"),
        *("linux", "nacl", "netbsd", "openbsd", "plan9", "solaris", "windows", "zos"),
    )
)
_KNOWN_ARCHITECTURES = frozenset(
    (
        *("386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips"),
        *("mipsle", "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le"),
        *("riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm"),
    )
)


class InvalidPlatformError(InvalidArgumentError):
    """The text is no platform."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def runs_on(self, host: Platform) -> bool:
        """Say whether ``host`` executes programs of this platform natively."""
        if (self.os, self.architecture) != (host.os, host.architecture):
            return False
        default = _DEFAULT_VARIANTS.get(host.architecture, "")
        return (self.variant or default) <= (host.variant or default)

    def provides(self, wanted: Platform) -> bool:
        """Say whether this is what somebody asked for; a variant left out is any."""
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and (
            not wanted.variant or self.variant in ("", wanted.variant)
        )


def host_platform() -> Platform:
    """Return this machine's platform."""
    return Platform("linux", *normal_architecture(os.uname().machine))


def normal_architecture(name: str) -> tuple[str, str]:
    """Return Go's name and variant for an architecture as the kernel or users spell it."""
    return _ARCHITECTURES.get(name.lower(), (name.lower(), ""))


def parse_platform(text: str) -> Platform:
    """Read ``os``, ``architecture`` or ``os/architecture[/variant]``; the rest is the host's.

    Raises:
        InvalidPlatformError: Docker's texts.

    """
    parts = text.split("/")
    for part in parts:
        if not _is_component(part):
            raise InvalidPlatformError(
                f'"{part[:80]}" is an invalid component of "{text[:80]}": platform specifier '
                f'component must match "^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(parts) > 3:
        raise InvalidPlatformError(
            f'"{text[:80]}": cannot parse platform specifier: invalid argument'
        )
    if len(parts) == 1:
        return _from_one_word(text)
    architecture, variant = normal_architecture(parts[1])
    return Platform(
        parts[0].lower(), architecture, parts[2].lower() if len(parts) == 3 else variant
    )


def _from_one_word(text: str) -> Platform:
    host = host_platform()
    if text.lower() in _SYSTEMS:
        return Platform(text.lower(), host.architecture, host.variant)
    architecture, variant = normal_architecture(text)
    if architecture in _KNOWN_ARCHITECTURES:
        return Platform(host.os, architecture, variant)
    raise InvalidPlatformError(
        f'"{text[:80]}": unknown operating system or architecture: invalid argument'
    )


def decode_platform(text: str) -> Platform:
    """Read the JSON form: ``{"os": "linux", "architecture": "arm64", "variant": "v8"}``.

    Raises:
        InvalidPlatformError: Docker's texts.

    """
    try:
        document = strict_json.loads(text, _JSON_LIMIT_BYTES)
    except strict_json.InvalidJsonError as exc:
        raise InvalidPlatformError(f"failed to parse platform: {exc}") from exc
    if not isinstance(document, dict):
        raise InvalidPlatformError("failed to parse platform: it is not an object")
    system, architecture, variant = (
        document.get(name) or "" for name in ("os", "architecture", "variant")
    )
    if not (isinstance(system, str) and isinstance(architecture, str) and isinstance(variant, str)):
        raise InvalidPlatformError("failed to parse platform: a member is not text")
    if not (system and architecture):
        raise InvalidPlatformError("both OS and Architecture must be provided")
    return parse_platform("/".join(filter(None, (system, architecture, variant))))


def encode_platform(text: str) -> str:
    """Return the JSON form of ``os[/architecture[/variant]]``. InvalidPlatformError."""
    platform = parse_platform(text)
    members = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        members["variant"] = platform.variant
    return strict_json.dumps(members).decode()
