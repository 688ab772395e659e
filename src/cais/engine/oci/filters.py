"""Which system-call filter a container gets, and where its compiled form lies."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cais.engine.oci.capabilities import granted
from cais.engine.oci.security import SecurityOptions
from cais.errors import InvalidArgumentError
from cais.linux.seccomp import compiler, profiles
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.engine.oci.host import Host
    from cais.spec.runtime import Seccomp

# Programs of the default profile by capabilities: making out a digest costs more than the rest.
_known: dict[tuple[frozenset[str], Path], str] = {}
_NOT_ENABLED = "seccomp is not enabled in your kernel"


class Wanted(NamedTuple):
    """A profile in Docker's form; None for no filter."""

    profile: dict[str, Any] | None
    warnings: list[str]


def wanted(options: SecurityOptions, host: Host, *, privileged: bool) -> Wanted:
    """Return the profile of a container.

    Privileged containers have none unless a profile was asked for.

    Raises:
        InvalidArgumentError: one was asked for and the kernel has no filters.

    """
    if options.seccomp == "unconfined" or (privileged and not options.is_seccomp_asked_for):
        return Wanted(None, [])
    if not host.seccomp:
        if options.is_seccomp_asked_for and options.seccomp != "builtin":
            raise InvalidArgumentError(f"{_NOT_ENABLED}, cannot run a custom seccomp profile")
        return Wanted(None, [f"{_NOT_ENABLED}, running container without default profile"])
    return Wanted(options.seccomp if isinstance(options.seccomp, dict) else default_profile(), [])


def compiled(
    wanted: Wanted, host: Host, capabilities: Sequence[str], directory: Path
) -> str | None:
    """Return the file of the program for these capabilities, compiling it when it is new.

    Raises:
        InvalidArgumentError: a profile that is none.

    """
    if wanted.profile is None:
        return None
    if wanted.profile is not default_profile():
        return _compile(wanted.profile, capabilities, host, directory)
    key = (frozenset(capabilities), directory)
    path = _known.get(key)
    if path is None or not Path(path).exists():
        path = _known[key] = _compile(wanted.profile, capabilities, host, directory)
    return path


def resolved(profile: dict[str, Any], host: Host, capabilities: Sequence[str]) -> Seccomp:
    """Return the rules of a profile that hold for these capabilities, as OCI documents have them.

    Raises:
        InvalidArgumentError: a profile that is none.

    """
    return profiles.resolve(
        profile, capabilities=capabilities, machine=host.machine, kernel=host.kernel
    )


def has_listener(profile: dict[str, Any]) -> bool:
    """Say whether an agent is to be told of calls: the runtime must know its address then."""
    return bool(profile.get("listenerPath"))


def prepare(host: Host, directory: Path) -> None:
    """Compile the program of an ordinary container before there is one. Blocks: 20 to 50 ms."""
    capabilities = granted((), (), host, privileged=False)
    default = wanted(SecurityOptions(), host, privileged=False)
    compiled(default, host, capabilities, directory)


def _compile(
    profile: dict[str, Any], capabilities: Sequence[str], host: Host, directory: Path
) -> str:
    return compiler.ensure_compiled(resolved(profile, host, capabilities), str(directory))


@cache
def default_profile() -> dict[str, Any]:
    """Return Docker's profile, as it ships with this package."""
    text = resources.files("cais.spec").joinpath("data/seccomp-default.json").read_bytes()
    profile: dict[str, Any] = strict_json.loads(text)
    return profile
