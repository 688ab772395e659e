"""Docker's profile format, made into an OCI ``linux.seccomp`` object for one container.

Docker's rules carry conditions (architectures, capabilities, kernel version) and the names of
architectures come with their 32-bit relatives; OCI knows neither.

Spec: Docker's seccomp profile format; OCI runtime-spec 1.2, config-linux.md "Seccomp".
"""

from __future__ import annotations

import re

from cais.errors import InvalidArgumentError
from cais.spec import runtime_schema, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from cais.spec.runtime import Seccomp

# uname's machine: Docker's name of the architecture, libseccomp's.
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "mips64": ("mips64", "SCMP_ARCH_MIPS64"),
}
NOTIFY = "SCMP_ACT_NOTIFY"
_KERNEL = re.compile(r"(\d{1,3})\.(\d{1,3})", re.ASCII)
_RULE_MEMBERS = ("names", "action", "errnoRet", "args")
_PROFILE_MEMBERS = (
    *("defaultAction", "defaultErrnoRet", "flags"),
    *("listenerPath", "listenerMetadata"),
)


def resolve(
    profile: Mapping[str, Any],
    *,
    capabilities: Collection[str],
    machine: str,
    kernel: tuple[int, int],
) -> Seccomp:
    """Return the rules that hold for these capabilities on this machine and kernel.

    Raises:
        InvalidArgumentError: the profile is malformed; every fault is named.

    """
    profile = schema.without_nulls(profile)
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidArgumentError(
            "'architectures' and 'archMap' were specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    docker_arch, native = ARCHITECTURES.get(machine, (machine, ""))
    facts = _Facts(frozenset(capabilities), docker_arch, kernel)
    resolved: dict[str, Any] = {name: profile[name] for name in _PROFILE_MEMBERS if name in profile}
    resolved["architectures"] = profile.get("architectures") or _with_relatives(profile, native)
    resolved["syscalls"] = _rules(profile.get("syscalls", []), facts)
    return check(resolved)


def check(seccomp: object) -> Seccomp:
    """Return a valid OCI object, without null members.

    Raises:
        InvalidArgumentError: every fault is named.

    """
    faults: list[str] = []
    checked: Seccomp = schema.without_nulls(seccomp)
    runtime_schema.SECCOMP(checked, "seccomp", faults)
    if faults:
        raise InvalidArgumentError("invalid seccomp profile: " + "; ".join(faults))
    return checked


def notified_calls(seccomp: Seccomp) -> frozenset[str]:
    """Return the names of the calls a listener is told about.

    Raises:
        InvalidArgumentError: ``write``, by which the process tells its parent of the listener, is
            among them, or the default action notifies.

    """
    if seccomp["defaultAction"] == NOTIFY:
        raise InvalidArgumentError(f"{NOTIFY} cannot be used as default action")
    rules = [rule for rule in seccomp.get("syscalls", []) if rule["action"] == NOTIFY]
    names = frozenset(name for rule in rules for name in rule["names"])
    if "write" in names:
        raise InvalidArgumentError(f"{NOTIFY} cannot be used for the write syscall")
    return names


class _Facts:
    """What a rule's conditions are held against."""

    __slots__ = ("arch", "capabilities", "kernel")

    def __init__(self, capabilities: frozenset[str], arch: str, kernel: tuple[int, int]) -> None:
        self.capabilities = capabilities
        self.arch = arch
        self.kernel = kernel


def _with_relatives(profile: Mapping[str, Any], native: str) -> list[str]:
    for entry in profile.get("archMap", []):
        if isinstance(entry, dict) and entry.get("architecture") == native:
            return [native, *entry.get("subArchitectures", [])]
    return [native] if native else []


def _rules(rules: object, facts: _Facts) -> list[dict[str, Any]]:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise InvalidArgumentError("invalid seccomp profile: syscalls must be an array of objects")
    found = []
    for rule in rules:
        if "name" in rule and rule.get("names"):
            raise InvalidArgumentError(
                "'name' and 'names' were specified in the seccomp profile, "
                "use either 'name' or 'names'"
            )
        if _applies(rule, facts):
            kept = {name: rule[name] for name in _RULE_MEMBERS if name in rule}
            if "name" in rule:  # the form of the first profiles
                kept["names"] = [rule["name"]]
            found.append(kept)
    return found


def _applies(rule: Mapping[str, Any], facts: _Facts) -> bool:
    """Whether everything in ``includes`` holds and nothing in ``excludes``."""
    includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
    if not isinstance(includes, dict) or not isinstance(excludes, dict):
        raise InvalidArgumentError("invalid seccomp profile: includes and excludes are objects")
    if includes.get("arches") and facts.arch not in includes["arches"]:
        return False
    if not facts.capabilities.issuperset(includes.get("caps", [])):
        return False
    if "minKernel" in includes and facts.kernel < _version(includes["minKernel"]):
        return False
    if facts.arch in excludes.get("arches", []):
        return False
    if facts.capabilities.intersection(excludes.get("caps", [])):
        return False
    return "minKernel" not in excludes or facts.kernel < _version(excludes["minKernel"])


def _version(text: object) -> tuple[int, int]:
    match = _KERNEL.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidArgumentError(f"invalid seccomp profile: invalid kernel version: {text!r:.64}")
    return int(match[1]), int(match[2])
