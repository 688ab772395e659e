"""A16, A27: what lies in an image is never run, loaded or written through by the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from security_daemon import connected, public_directory, running

from cais.testing.archives import busybox_rootfs, docker_archive, tar_of
from cais.testing.raw_tar import fingerprint

if TYPE_CHECKING:
    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROGRAMS = (
    *("nsenter", "xz", "unpigz", "gzip", "gunzip", "zstd", "tar", "ps", "git", "ip", "nft"),
    *("iptables", "mount", "umount", "python3", "env", "stat", "find"),
)
LIBRARIES = (
    *("libnss_files.so.2", "libnss_dns.so.2", "libnss_compat.so.2", "libnss_systemd.so.2"),
    *("libgcc_s.so.1", "libc.so.6", "libpython3.11.so.1.0", "libseccomp.so.2"),
)
POISON = b'#!/bin/busybox sh\necho "$0" >>/marker\nenv >>/marker\n'


def poisoned() -> bytes:
    """Return a layer in which everything a host program could be lured into leaves a mark."""
    files: dict[str, bytes | str | None] = dict.fromkeys(
        ("usr/bin", "usr/sbin", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/gconv")
    )
    files["usr/lib/python3.11/encodings"] = None
    files |= {f"bin/{name}": POISON for name in PROGRAMS}
    files |= {f"usr/{place}/{name}": "/bin/tar" for place in ("bin", "sbin") for name in PROGRAMS}
    files |= {f"lib/x86_64-linux-gnu/{name}": POISON for name in LIBRARIES}
    files["usr/lib/x86_64-linux-gnu/gconv/gconv-modules"] = b"module X// INTERNAL ../../tmp/x 1\n"
    files["etc/nsswitch.conf"] = b"passwd: evil\ngroup: evil\n"
    for name in ("traceback", "json", "pwd", "encodings/idna", "sitecustomize"):
        files[f"usr/lib/python3.11/{name}.py"] = b"open('/marker', 'w').write('imported')\n"
    return tar_of(files)


def test_cve_2019_14271_nothing_of_a_poisoned_image_runs(daemon: TestDaemon) -> None:
    image = docker_archive("evil:poison", [busybox_rootfs(), poisoned()], Cmd=["sleep", "60"])
    daemon.docker("load", stdin=image)
    health = {"test": ["CMD", "/bin/busybox", "true"], "interval": 10**8}
    try:
        with (
            connected(daemon) as client,
            running(client, "sleep", "60", image="evil:poison", healthcheck=health) as container,
        ):
            look = ["/bin/busybox", "cat", "/marker"]
            for user in ("", "nobody", "nobody:staff", "1000:1000"):
                assert container.exec_run(["/bin/busybox", "true"], user=user)[0] == 0
            assert container.exec_run(["/bin/busybox", "id"], user="stranger")[0] != 0
            container.top()
            container.logs()
            container.pause()
            container.unpause()
            container.update(mem_limit="64m", memswap_limit="64m")
            container.rename("renamed-poison")
            container.restart(timeout=0)
            container.reload()
            assert container.exec_run(look)[0] != 0, container.exec_run(look)[1]
            # The marks would be seen: the poison works when somebody runs it.
            container.exec_run(["/bin/tar"])
            assert container.exec_run(look)[1].startswith(b"/bin/tar\n")
    finally:
        daemon.docker("rmi", "-f", "evil:poison")


@pytest.mark.parametrize("target", ["absolute", "magic"])
@pytest.mark.parametrize("name", ["etc", "etc/hosts", "etc/mtab", ".dockerenv"])
def test_cve_2024_5154_files_of_the_engine_stay_inside(
    daemon: TestDaemon, name: str, target: str
) -> None:
    """Every file the engine makes in a root, and its directory, as a link out of it."""
    with public_directory() as outside:
        (outside / "file").write_text("mine\n")
        before = fingerprint(outside)
        link = {
            "absolute": f"{outside}/file" if name != "etc" else str(outside),
            "magic": f"/proc/self/root{outside}/other",
        }[target]
        layers = [busybox_rootfs(), tar_of({name: link})]
        daemon.docker("load", stdin=docker_archive("evil:links", layers, Cmd=["true"]))
        try:
            done = daemon.docker("run", "--rm", "evil:links", "true", check=False)
            assert done.returncode in (0, 125), done.stderr
            assert fingerprint(outside) == before
        finally:
            daemon.docker("rmi", "-f", "evil:links")
