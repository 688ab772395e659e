"""AppArmor: whether the host has it, which profiles are loaded, and the one containers get.

The default profile is Docker's in name and effect, written here from what it protects:

    allowed   files, network, every capability (they are bounded otherwise), unmounting
    signals   from the engine and from outside any profile; among containers of the profile
    refused   mounting; the kernel's settings in /proc and /sys, but for what containers tune
              (shared memory limits, their own control groups); sysrq, kcore, firmware, policy

A profile names what is refused, and its patterns have no "everything but": ``_all_but`` spells
that out. It is compiled and loaded by AppArmor's own compiler, as Docker does it; a host without
that counts as one without AppArmor.

Spec: apparmor.d(5), apparmor_parser(8); kernel Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import os

from cais.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PROFILE = "docker-default"
UNCONFINED = "unconfined"
_POLICY = "/sys/kernel/security/apparmor"
_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PARSERS = ("/sbin/apparmor_parser", "/usr/sbin/apparmor_parser")
_LABEL = "/proc/self/attr/apparmor/current"
_OLD_LABEL = "/proc/self/attr/current"  # before Linux 5.8
_LOAD_TIMEOUT_S = 30
# Programs that end containers' processes; distributions give some a profile of their own.
_SENDERS = (UNCONFINED, "runc", "crun")
_HIDDEN = (
    "/proc/sysrq-trigger",
    "/proc/kcore",
    "/sys/firmware/**",
    "/sys/devices/virtual/powercap/**",
    "/sys/kernel/security/**",
)


def is_enabled() -> bool:
    """Whether the kernel confines by AppArmor, and this process sees its policy."""
    return os.path.isdir(_POLICY) and _first_line(_ENABLED) == "Y"


def is_usable() -> bool:
    """Whether containers are to be confined: enabled, can be loaded, and not in a container."""
    in_container = bool(os.environ.get("container"))  # noqa: SIM112 - systemd's spelling
    return is_enabled() and not in_container and _find_parser() is not None


def is_loaded(profile: str) -> bool:
    """Whether the kernel knows ``profile``, of whatever mode."""
    return profile in _loaded()


def ensure_default() -> None:
    """Load the default profile unless one of that name is there, perhaps Docker's.

    Raises:
        UnavailableError: it could not be loaded.

    Blocks: for as long as the compiler takes, once after each boot.

    """
    if not is_loaded(DEFAULT_PROFILE):
        load(profile_text(DEFAULT_PROFILE, _own_label()))


def load(text: str) -> None:
    """Compile profiles and load them, taking the place of those of the same names.

    Raises:
        UnavailableError: there is no compiler, or it refused.

    """
    import subprocess

    parser = _find_parser()
    if parser is None:
        raise UnavailableError("apparmor_parser is not installed")
    # Its cache is the host's, whose profiles come from files.
    command = [parser, "--skip-cache", "--replace"]
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=_LOAD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"running `{' '.join(command)}` failed: {error}") from error
    if done.returncode:
        reason = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise UnavailableError(f"running `{' '.join(command)}` failed: {reason}")


def profile_text(name: str, engine: str) -> str:
    """Return the default profile as ``name``.

    Args:
        name: what it is called.
        engine: label of the processes that signal containers.

    """
    rules = ["file,", "network,", "unix,", "capability,", "umount,", "deny mount,"]
    rules += [f"signal (receive) peer={sender}," for sender in dict.fromkeys((*_SENDERS, engine))]
    rules.append(f"signal (send, receive) peer={name},")
    rules.append(f"ptrace (trace, read, tracedby, readby) peer={name},")
    rules += [f"deny {path} {access}," for path, access in _refused()]
    body = "".join(f"  {rule}\n" for rule in rules)
    return f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{body}}}\n"


def _refused() -> Iterator[tuple[str, str]]:
    for path in _HIDDEN:
        yield path, "rwklx"
    yield "/proc/*", "w"
    for pattern in _all_but("sys", also="0-9"):  # directories of processes have numbers
        yield f"/proc/{pattern}/**", "w"
    for pattern in _all_but("kernel"):
        yield f"/proc/sys/{pattern}/**", "w"
    for pattern in _beginning_otherwise("shm"):
        yield f"/proc/sys/kernel/{pattern}", "w"
    for pattern in _all_but("fs"):
        yield f"/sys/{pattern}/**", "wklx"
    for pattern in _all_but("cgroup"):
        yield f"/sys/fs/{pattern}/**", "wklx"


def _all_but(name: str, also: str = "") -> Iterator[str]:
    """Yield patterns that together match every name but ``name``.

    ``also`` are more first letters not to match.
    """
    yield f"[^{name[0]}{also}]*"
    for length in range(1, len(name)):
        yield name[:length]  # shorter
        yield f"{name[:length]}[^{name[length]}]*"
    yield f"{name}?*"  # longer


def _beginning_otherwise(start: str) -> Iterator[str]:
    """Yield patterns that together match every path but those beginning with ``start``."""
    yield f"[^{start[0]}]**"
    for length in range(1, len(start)):
        yield start[:length]
        yield f"{start[:length]}[^{start[length]}]**"


def _loaded() -> frozenset[str]:
    try:
        with open(f"{_POLICY}/profiles", encoding="utf-8", errors="replace") as table:
            return frozenset(line.rpartition(" (")[0] for line in table)
    except OSError:
        return frozenset()


def _own_label() -> str:
    """Return the profile this process is under, or ``unconfined``."""
    label = _first_line(_LABEL) or _first_line(_OLD_LABEL)
    return label.rpartition(" (")[0] or label or UNCONFINED


def _find_parser() -> str | None:
    return next((path for path in _PARSERS if os.access(path, os.X_OK)), None)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip("\0\n ")
    except OSError:
        return ""
