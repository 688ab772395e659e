"""What ``features`` prints: what this runtime can do, as the specification words it.

It speaks of the program, as the specification wants; that a host lacks a kernel option or runs no
AppArmor is not its matter. Only libseccomp is asked, whose absence no document could get around.

Spec: OCI runtime-spec 1.2, features.md, features-linux.md.
"""

from __future__ import annotations

from cais.linux import credentials, namespaces
from cais.linux.seccomp import compiler, library
from cais.runtime import mounts
from cais.spec.runtime import NEWEST_OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HOOKS = (
    *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
)
_UNSAFE_ANNOTATIONS: tuple[str, ...] = ()  # no annotation changes what this runtime does


def document() -> dict[str, Any]:
    """Return the document.

    Blocks: for loading libseccomp.
    """
    version = library.version()
    annotations = {"io.github.seccomp.libseccomp.version": version} if version else {}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST_OCI_VERSION,
        "hooks": list(_HOOKS),
        "mountOptions": mounts.known_options(),
        "linux": {
            "namespaces": sorted(namespaces.KINDS),
            "capabilities": list(credentials.BITS),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": _seccomp() if version else {"enabled": False},
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "potentiallyUnsafeConfigAnnotations": list(_UNSAFE_ANNOTATIONS),
        "annotations": annotations,
    }


def _seccomp() -> dict[str, Any]:
    flags = sorted(compiler.FLAGS)
    return {
        "enabled": True,
        "actions": sorted(compiler.ACTIONS),
        "operators": [f"SCMP_CMP_{name}" for name in sorted(compiler.OPERATORS)],
        "archs": library.known_architectures(),
        "knownFlags": flags,
        "supportedFlags": flags,
    }
