"""Rules about registries: where a repository is, and who is given credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cais.errors import ForbiddenError, InvalidArgumentError
from cais.registry.settings import RegistryRule, RegistrySettings, load_settings

if TYPE_CHECKING:
    from pathlib import Path


def places(settings: RegistrySettings, domain: str, path: str = "team/box") -> list[str]:
    return [
        f"{one.origin}/{one.path}{'' if one.takes_credentials else ' anonymous'}"
        for one in settings.endpoints(domain, path)
    ]


def rules(*given: RegistryRule, default: str = "") -> RegistrySettings:
    return RegistrySettings({rule.name: rule for rule in given}, default=default)


def test_without_rules() -> None:
    settings = RegistrySettings()
    assert places(settings, "docker.io") == ["https://registry-1.docker.io/team/box"]
    assert places(settings, "example.com") == ["https://example.com/team/box"]
    assert places(settings, "localhost:5000") == [
        *("https://localhost:5000/team/box", "http://localhost:5000/team/box")
    ]


def test_mirrors_come_first_and_know_nobody() -> None:
    settings = RegistrySettings(mirrors=("https://mirror.example.com",))
    assert places(settings, "docker.io") == [
        *("https://mirror.example.com/team/box anonymous", "https://registry-1.docker.io/team/box")
    ]
    assert len(settings.endpoints("docker.io", "team/box", for_push=True)) == 1
    assert len(settings.endpoints("example.com", "team/box")) == 1


@pytest.mark.parametrize(
    ("name", "location", "place"),
    [
        ("example.com", "hub.example.com", "https://hub.example.com/team/box"),
        ("example.com", "hub.example.com/all", "https://hub.example.com/all/team/box"),
        ("example.com/team", "hub.example.com/all", "https://hub.example.com/all/box"),
        ("example.com/team/box", "hub.example.com/one", "https://hub.example.com/one"),
        ("example.com/tea", "hub.example.com", "https://example.com/team/box"),
        ("example.com", "elsewhere.net:8443", "https://elsewhere.net:8443/team/box anonymous"),
    ],
)
def test_locations(name: str, location: str, place: str) -> None:
    assert places(rules(RegistryRule(name, location)), "example.com") == [place]


def test_the_longest_name_counts() -> None:
    settings = rules(
        RegistryRule("example.com", blocked=True),
        RegistryRule("example.com/team", "a.example.com/x"),
        RegistryRule("example.com/team/box", "b.example.com/y"),
    )
    assert places(settings, "example.com") == ["https://b.example.com/y"]
    assert places(settings, "example.com", "team/jar") == ["https://a.example.com/x/jar"]
    with pytest.raises(ForbiddenError, match=r"example\.com is blocked"):
        settings.endpoints("example.com", "other/box")


def test_a_default_stands_for_docker_io() -> None:
    settings = rules(default="hub.example.com/docker")
    assert places(settings, "docker.io", "library/box") == [
        "https://hub.example.com/docker/library/box anonymous"
    ]
    assert places(settings, "example.com") == ["https://example.com/team/box"]
    both = rules(RegistryRule("docker.io/library", "own.example.com"), default="hub.example.com")
    assert places(both, "docker.io", "library/box") == ["https://own.example.com/box anonymous"]


def test_insecure_is_said_of_the_name_or_of_the_place() -> None:
    by_name = rules(RegistryRule("example.com", insecure=True))
    assert len(by_name.endpoints("example.com", "x")) == 2
    by_place = RegistrySettings(insecure=("192.0.2.0/24", "box:5000"))
    assert len(by_place.endpoints("192.0.2.7:5000", "x")) == 2
    assert len(by_place.endpoints("box:5000", "x")) == 2
    assert len(by_place.endpoints("box:5001", "x")) == 1
    moved = rules(RegistryRule("example.com", "localhost:5000"))
    assert places(moved, "example.com") == [
        *("https://localhost:5000/team/box anonymous", "http://localhost:5000/team/box anonymous")
    ]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "registries.toml"
    path.write_text('[[registry]]\nname = "example.com"\nlocation = "a.example.com"\n')
    assert places(load_settings(path), "example.com") == ["https://a.example.com/team/box"]
    assert load_settings(tmp_path / "absent").rules == {}
    for wrong in ("registry = 7", "[[registry]]\nname = 7", "nonsense = true", "["):
        path.write_text(wrong)
        with pytest.raises(InvalidArgumentError):
            load_settings(path)
