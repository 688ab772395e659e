"""``--security-opt``: seccomp, AppArmor, SELinux labels, no-new-privileges, systempaths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.engine.oci.host import Host

PROFILE_LIMIT_BYTES = 1024 * 1024
DEFAULT_APPARMOR = "docker-default"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """What the options say together.

    ``seccomp`` is ``builtin``, ``unconfined`` or a profile in Docker's form. Labels are kept for
    inspection; without SELinux they have no effect.
    """

    no_new_privileges: bool = False
    seccomp: str | dict[str, Any] = "builtin"
    is_seccomp_asked_for: bool = False
    apparmor: str = ""
    labels: tuple[str, ...] = field(default=())
    system_paths: bool = True


def parse_security_options(options: Iterable[str]) -> SecurityOptions:
    """Read ``HostConfig.SecurityOpt``; the last of each kind counts.

    Args:
        options: ``key=value``, the old ``key:value``, or a bare word.

    Raises:
        InvalidArgumentError: Docker's texts.

    """
    found = SecurityOptions()
    for option in options:
        found = _apply(found, option)
    return found


def apparmor_profile(options: SecurityOptions, host: Host, *, privileged: bool) -> str | None:
    """Return the profile to confine with; None where AppArmor is off or nothing is to be set.

    The default is Docker's own profile, if it is loaded: an engine that refused every container
    because another program's profile is missing would help nobody.

    Raises:
        InvalidArgumentError: a profile was named that is not loaded.

    """
    if not host.apparmor_profiles:
        return None
    if options.apparmor and options.apparmor != "unconfined":
        if options.apparmor not in host.apparmor_profiles:
            raise InvalidArgumentError(f"apparmor profile is not loaded: {options.apparmor[:128]}")
        return options.apparmor
    if options.apparmor == "unconfined" or privileged:
        return "unconfined"
    return DEFAULT_APPARMOR if DEFAULT_APPARMOR in host.apparmor_profiles else None


def _apply(found: SecurityOptions, option: str) -> SecurityOptions:
    if option == "no-new-privileges":
        return replace(found, no_new_privileges=True)
    if option == "disable":
        return replace(found, labels=(*found.labels, option))
    separator = "=" if "=" in option else ":"
    key, separated, value = option.partition(separator)
    if not separated:
        raise InvalidArgumentError(f'invalid --security-opt 1: "{option[:128]}"')
    if key == "label":
        return replace(found, labels=(*found.labels, value))
    if key == "apparmor":
        return replace(found, apparmor=value)
    if key == "seccomp":
        return replace(found, seccomp=_parse_seccomp(value), is_seccomp_asked_for=True)
    if key == "systempaths" and value == "unconfined":
        return replace(found, system_paths=False)
    if key == "no-new-privileges" and value in _TRUE + _FALSE:
        return replace(found, no_new_privileges=value in _TRUE)
    raise InvalidArgumentError(f'invalid --security-opt 2: "{option[:128]}"')


def _parse_seccomp(value: str) -> str | dict[str, Any]:
    if value in ("unconfined", "builtin"):
        return value
    try:
        profile = strict_json.loads(value, PROFILE_LIMIT_BYTES)
    except strict_json.InvalidJsonError as exc:
        raise InvalidArgumentError(f"Decoding seccomp profile failed: {exc}") from exc
    if not isinstance(profile, dict):
        raise InvalidArgumentError("Decoding seccomp profile failed: it is not an object")
    return profile
