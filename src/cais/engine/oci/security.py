"""``--security-opt``: seccomp, AppArmor, SELinux labels, no-new-privileges, systempaths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cais.errors import InternalError, InvalidArgumentError, UnavailableError
from cais.linux import apparmor
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.engine.oci.host import Host

PROFILE_LIMIT_BYTES = 1024 * 1024
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
    """Return the profile to confine with, loaded; None where AppArmor is off.

    Blocks: where the default profile has been unloaded, which updates do, until it is back.

    Raises:
        InvalidArgumentError: a profile was named that is not loaded.
        InternalError: the default profile cannot be loaded.

    """
    profile = wanted_apparmor(options, host, privileged=privileged)
    if profile == apparmor.DEFAULT_PROFILE:
        load_default_apparmor()
    elif profile not in ("", apparmor.UNCONFINED) and not apparmor.is_loaded(profile):
        raise InvalidArgumentError(f"apparmor profile is not loaded: {profile[:128]}")
    return profile or None


def wanted_apparmor(options: SecurityOptions, host: Host, *, privileged: bool) -> str:
    """Return the name of the profile a container shall be under; "" where AppArmor is off."""
    if not host.apparmor:
        return ""
    return options.apparmor or (apparmor.UNCONFINED if privileged else apparmor.DEFAULT_PROFILE)


def load_default_apparmor() -> None:
    """Load the default profile unless it is there. InternalError, in Docker's words: it failed."""
    try:
        apparmor.ensure_default()
    except UnavailableError as exc:
        raise InternalError(
            f"AppArmor enabled on system but the {apparmor.DEFAULT_PROFILE} profile could not be "
            f"loaded: {exc}"
        ) from exc


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
