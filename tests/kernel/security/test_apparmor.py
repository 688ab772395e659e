"""AppArmor: containers and their execs are under the profile, and it holds."""

from __future__ import annotations

from signal import SIGKILL, pidfd_send_signal
from typing import TYPE_CHECKING, Any

import pytest
from docker_bundle import docker_bundle, remove_parent

from cais.errors import InvalidArgumentError
from cais.linux import apparmor
from cais.runtime.launch import LaunchError
from cais.spec.container import HostConfig
from cais.testing.bundles import Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cais.testing.bundles import Bundle

pytestmark = pytest.mark.skipif(not apparmor.is_usable(), reason="needs AppArmor and its parser")
LABEL = "cat /proc/self/attr/apparmor/current"
# What only the profile refuses: the container below has every capability, no masks, no filter.
ATTEMPTS = """
mkdir -p /tmp
mount -t tmpfs none /tmp 2>/dev/null && echo mounted
echo h 2>/dev/null >/proc/sysrq-trigger && echo sysrq
echo x 2>/dev/null >/proc/sys/kernel/core_pattern && echo core_pattern
head -c1 /proc/kcore >/dev/null 2>&1 && echo kcore
echo 1 2>/dev/null >/sys/kernel/mm/ksm/run && echo ksm
echo 268435456 2>/dev/null >/proc/sys/kernel/shmmax && echo shmmax
echo $$ 2>/dev/null >/proc/self/oom_score_adj
touch /tmp/file && echo file
"""


def everything_but_the_profile(**changes: Any) -> HostConfig:
    options = ["seccomp=unconfined", "systempaths=unconfined", *changes.pop("security_opt", [])]
    return HostConfig(cap_add=["ALL"], security_opt=options, **changes)


def in_bundle(path: Path, host_config: HostConfig, body: Callable[[Bundle], None]) -> None:
    def isolated_body() -> None:
        bundle = docker_bundle(path, host_config)
        for entry in bundle.config["mounts"]:  # the profile is to refuse, not the mount
            entry["options"] = [word for word in entry.get("options", ()) if word != "ro"]
        try:
            body(bundle)
        finally:
            remove_parent()

    isolated(isolated_body)


def test_the_default_profile_is_in_force(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        assert bundle.shell(LABEL).stdout == "docker-default (enforce)\n"

    in_bundle(tmp_path, HostConfig(), body)


def test_the_default_profile_refuses_what_capabilities_would_allow(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        assert bundle.shell(ATTEMPTS).stdout.split() == ["shmmax", "file"]

    in_bundle(tmp_path, everything_but_the_profile(), body)


def test_an_exec_is_under_it_too(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            try:
                result = bundle.execute(init, "sh", "-c", LABEL + ATTEMPTS)
            finally:
                # Also a check that signals from outside are let through.
                pidfd_send_signal(init.pidfd, SIGKILL)
                end(init)
                bundle.destroy()
        assert result.stdout.split() == ["docker-default", "(enforce)", "shmmax", "file"]

    in_bundle(tmp_path, everything_but_the_profile(), body)


def test_unconfined_and_privileged_are_not(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        assert "mounted" in bundle.shell(ATTEMPTS).stdout.split()
        assert bundle.shell(LABEL).stdout == "unconfined\n"

    in_bundle(tmp_path, everything_but_the_profile(security_opt=["apparmor=unconfined"]), body)


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        assert bundle.shell(LABEL).stdout == "cais-test-own (enforce)\n"
        assert bundle.shell("mkdir /tmp; touch /tmp/file && echo made").stdout == ""

    apparmor.load("profile cais-test-own {\n  file,\n  signal,\n  deny /tmp/** w,\n}\n")
    with pytest.raises(InvalidArgumentError, match="not loaded: cais-test-none"):
        docker_bundle(tmp_path, HostConfig(security_opt=["apparmor=cais-test-none"]))
    in_bundle(tmp_path / "own", HostConfig(security_opt=["apparmor=cais-test-own"]), body)


def test_a_profile_that_is_not_loaded_is_an_error_of_the_runtime(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        bundle.process["apparmorProfile"] = "cais-test-none"
        with pytest.raises(LaunchError, match="apparmor failed to apply profile"):
            bundle.run("true")

    in_bundle(tmp_path, HostConfig(), body)


def test_the_profile_comes_back_when_it_was_unloaded() -> None:
    apparmor.ensure_default()
    assert apparmor.is_loaded(apparmor.DEFAULT_PROFILE)
    with open("/sys/kernel/security/apparmor/.remove", "w", encoding="ascii") as remove:
        remove.write(apparmor.DEFAULT_PROFILE)
    assert not apparmor.is_loaded(apparmor.DEFAULT_PROFILE)
    apparmor.ensure_default()
    assert apparmor.is_loaded(apparmor.DEFAULT_PROFILE)
