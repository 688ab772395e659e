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

# Programs of the default profile by capabilities: making out a digest costs more than the rest.
_known: dict[tuple[frozenset[str], Path], str] = {}
_NOT_ENABLED = "seccomp is not enabled in your kernel"


class Filter(NamedTuple):
    """A compiled program's file; None for no filter."""

    path: str | None
    warnings: list[str]


def compiled(
    options: SecurityOptions,
    host: Host,
    capabilities: Sequence[str],
    directory: Path,
    *,
    privileged: bool,
) -> Filter:
    """Return the program for these capabilities on this kernel, compiling it when it is new.

    Privileged containers have none unless a profile was asked for.

    Raises:
        InvalidArgumentError: a profile that is none; one was asked for and the kernel has no
            filters.

    """
    if options.seccomp == "unconfined" or (privileged and not options.is_seccomp_asked_for):
        return Filter(None, [])
    if not host.seccomp:
        if options.is_seccomp_asked_for and options.seccomp != "builtin":
            raise InvalidArgumentError(f"{_NOT_ENABLED}, cannot run a custom seccomp profile")
        return Filter(None, [f"{_NOT_ENABLED}, running container without default profile"])
    if isinstance(options.seccomp, dict):
        return Filter(_compile(options.seccomp, capabilities, host, directory), [])
    key = (frozenset(capabilities), directory)
    path = _known.get(key)
    if path is None or not Path(path).exists():
        path = _known[key] = _compile(default_profile(), capabilities, host, directory)
    return Filter(path, [])


def prepare(host: Host, directory: Path) -> None:
    """Compile the program of an ordinary container before there is one. Blocks: 20 to 50 ms."""
    capabilities = granted((), (), host, privileged=False)
    compiled(SecurityOptions(), host, capabilities, directory, privileged=False)


def _compile(
    profile: dict[str, Any], capabilities: Sequence[str], host: Host, directory: Path
) -> str:
    resolved = profiles.resolve(
        profile, capabilities=capabilities, machine=host.machine, kernel=host.kernel
    )
    return compiler.ensure_compiled(resolved, str(directory))


@cache
def default_profile() -> dict[str, Any]:
    """Return Docker's profile, as it ships with this package."""
    text = resources.files("cais.spec").joinpath("data/seccomp-default.json").read_bytes()
    profile: dict[str, Any] = strict_json.loads(text)
    return profile
