"""A container as the engine would run it: the engine's own document, a root of busybox."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from cais.engine.oci import Target, adapt_host_config, build_document, detect_host
from cais.linux.cgroups import detect, open_cgroup
from cais.spec.container import ContainerConfig, HostConfig
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def cgroup_parent() -> str:
    """Return a control group no other test run has; ``remove_parent`` when the test is done."""
    return f"/cais-test-{os.getpid()}"


def remove_parent() -> None:
    """Remove it."""
    open_cgroup(detect(), cgroup_parent()).remove()


def docker_bundle(directory: Path, host_config: HostConfig | None = None) -> Bundle:
    """Return a bundle with what ``docker run`` and these options mean."""
    bundle = Bundle(directory / "bundle", "cais-test")
    host, config = detect_host(), ContainerConfig(cmd=["true"], env=["PATH=/bin"], hostname="box")
    adapted, _ = adapt_host_config(config, host_config or HostConfig(), host)
    target = Target(
        id=bundle.id,
        host=host,
        rootfs=(),
        seccomp_dir=directory / "seccomp",
        cgroup_parent=cgroup_parent(),
    )
    built = build_document(config, adapted, target)
    bundle.config, bundle.extras = built.config, built.cais
    return bundle


def in_container(
    directory: Path, body: Callable[[Bundle], None], host_config: HostConfig | None = None
) -> None:
    """Run a body with such a bundle in namespaces of its own; nothing is left, whatever happens."""

    def whole() -> None:
        bundle = docker_bundle(directory, host_config)
        try:
            body(bundle)
        finally:
            bundle.destroy()
            remove_parent()

    isolated(whole)


def give_user_namespace(bundle: Bundle, first_id: int = 100000) -> None:
    """Give the container a user namespace in which 65536 ids of the host's are its own."""
    subprocess.run(["chown", "-hR", f"{first_id}:{first_id}", bundle.rootfs], check=True)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux.pop("sysctl", None)  # of an own network namespace; Docker sets none here either
    ids = [{"containerID": 0, "hostID": first_id, "size": 65536}]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = ids
