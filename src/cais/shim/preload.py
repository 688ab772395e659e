"""What the runtime imports only for a document that asks for it, imported at once.

The shim outlives the program's files: an upgrade replaces them, and a module that was imported
after that would not fit the others. So nothing is imported once it serves.
"""

from __future__ import annotations

RARE = (
    "cais.linux.cgroups.systemd",
    "cais.linux.cgroups.v1",
    "cais.linux.cgroups.v2",
    "cais.linux.personality",
    "cais.linux.seccomp.compiler",
    "cais.linux.user_namespaces",
    "cais.runtime.errands",
    "cais.runtime.hook_runner",
    "cais.runtime.hooks",
    "cais.runtime.id_mapped_mounts",
    "cais.runtime.net_devices",
    "cais.runtime.no_group",
    "cais.runtime.oci_state",
    "cais.runtime.seccomp_agent",
    "cais.runtime.tuning",
)


def load() -> None:
    """Import all of it. Blocks: for some milliseconds, so not before anybody who waits is told."""
    for name in RARE:
        __import__(name)
