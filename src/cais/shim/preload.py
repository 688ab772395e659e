"""What the runtime imports only for a document that asks for it, imported at once.

The shim outlives the program's files: an upgrade replaces them, and a module that was imported
after that would not fit the others. So nothing is imported once it serves.
"""

from __future__ import annotations

RARE = (  # below ``cais``
    "linux.cgroups.systemd",
    "linux.cgroups.v1",
    "linux.cgroups.v2",
    "linux.personality",
    "linux.seccomp.compiler",
    "linux.user_namespaces",
    "runtime.apart",
    "runtime.errands",
    "runtime.fuse_layers",
    "runtime.hook_runner",
    "runtime.hooks",
    "runtime.id_mapped_mounts",
    "runtime.net_devices",
    "runtime.no_group",
    "runtime.oci_state",
    "runtime.reaper",
    "runtime.seccomp_agent",
    "runtime.tuning",
)


def load() -> None:
    """Import all of it. Blocks: for some milliseconds, so not before anybody who waits is told."""
    for name in RARE:
        __import__(f"cais.{name}")
