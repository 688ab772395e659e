"""The daemon's options about registries, from flags, file and environment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cais.api.daemon_flags import InvalidFlagError, load_config_file, parse_flags
from cais.api.registry_options import registry_options
from cais.registry.proxies import Proxies

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.fake_engine import FakeEngine


def in_file(tmp_path: Path, document: Any) -> dict[str, Any]:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(document))
    return load_config_file(path, must_exist=True)


def test_nothing_said() -> None:
    options = registry_options({}, {})
    assert (options.downloads, options.uploads, options.proxies) == (3, 5, Proxies())


def test_flags() -> None:
    values = parse_flags(
        [
            *("--max-concurrent-downloads", "7", "--max-concurrent-uploads=0"),
            *("--allow-nondistributable-artifacts", "a.example.com", "--no-proxy", "x,y"),
            *("--insecure-registry", "b.example.com", "--registry-mirror", "https://m.example.com"),
        ]
    )
    options = registry_options(values, {})
    assert (options.downloads, options.uploads) == (7, 5)
    assert options.takes_foreign == ("a.example.com",)
    assert options.insecure == ("b.example.com",)
    assert options.mirrors == ("https://m.example.com",)
    assert options.proxies.no == "x,y"


def test_proxies_of_the_file_come_before_those_of_the_environment(tmp_path: Path) -> None:
    values = in_file(tmp_path, {"proxies": {"http-proxy": "http://file", "no-proxy": "a"}})
    environment = {"HTTP_PROXY": "http://environment", "https_proxy": "http://other"}
    proxies = registry_options(values, environment).proxies
    assert proxies == ("http://file", "http://other", "a")


@pytest.mark.parametrize("proxies", [[], "http://x", {"ftp-proxy": "x"}, {"http-proxy": 7}])
def test_proxies_that_are_none(tmp_path: Path, proxies: Any) -> None:
    with pytest.raises(InvalidFlagError):
        in_file(tmp_path, {"proxies": proxies})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max-concurrent-downloads": -1}, "invalid max concurrent downloads: -1"),
        ({"max-concurrent-uploads": -2}, "invalid max concurrent uploads: -2"),
        ({"http-proxy": "socks5://x"}, "only http:// proxies are"),
    ],
)
def test_values_that_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidFlagError, match=said):
        registry_options(values, {})


def test_what_info_says_of_them() -> None:
    values = {
        "registry-mirror": ["https://m.example.com"],
        "insecure-registry": ["192.0.2.0/24", "box:5000"],
        "http-proxy": "http://jane:secret@proxy",
    }
    shown = registry_options(values, {}).described()
    configuration = shown["RegistryConfig"]
    assert configuration["Mirrors"] == ["https://m.example.com/"]
    assert configuration["InsecureRegistryCIDRs"] == ["::1/128", "127.0.0.0/8", "192.0.2.0/24"]
    assert configuration["IndexConfigs"]["docker.io"]["Mirrors"] == ["https://m.example.com/"]
    assert configuration["IndexConfigs"]["box:5000"]["Secure"] is False
    assert shown["HttpProxy"] == "http://xxxxx:xxxxx@proxy"


async def test_a_search_is_passed_on(client: Any, engine: FakeEngine) -> None:
    engine.answers["transfers.search"] = [{"name": "box"}]
    filters = "%7B%22stars%22%3A%5B%223%22%5D%7D"
    path = f"/images/search?term=a%2Fb&limit=7&filters={filters}"
    await client.ask("GET", path)
    asked = engine.arguments("transfers.search")
    assert (asked["0"], asked["1"], asked["2"]) == ("a/b", 7, {"stars": ["3"]})
