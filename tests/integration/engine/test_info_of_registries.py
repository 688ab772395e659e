"""``docker info`` says which registries the daemon trusts, and through whom it reaches them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.testing.daemon import TestDaemon


def test_what_the_daemon_was_told_of_registries(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(
        *("--insecure-registry", "box:5000", "--registry-mirror", "https://m.example.com"),
        *("--http-proxy", "http://jane:secret@proxy:3128", "--no-proxy", "box"),
        load=False,
    )
    text = daemon.docker("info").stdout
    assert " Insecure Registries:\n  box:5000\n  ::1/128\n  127.0.0.0/8\n" in text
    assert " Registry Mirrors:\n  https://m.example.com/\n" in text
    assert " HTTP Proxy: http://xxxxx:xxxxx@proxy:3128\n No Proxy: box\n" in text


def test_what_it_says_when_told_nothing(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon(load=False)
    shown = json.loads(daemon.docker("info", "--format", "{{json .RegistryConfig}}").stdout)
    assert shown["InsecureRegistryCIDRs"] == ["::1/128", "127.0.0.0/8"]
    assert shown["IndexConfigs"] == {
        "docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}
    }
