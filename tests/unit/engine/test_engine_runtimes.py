"""Which runtime a name stands for."""

from pathlib import Path

import pytest

from cais.engine.config import EngineConfig
from cais.engine.runtimes import Runtimes
from cais.errors import InvalidArgumentError
from cais.runtime.launch import LaunchError
from cais.shim.values import OciRuntime


def install(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that alone is on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def runtimes(default: str = "", **configured: tuple[str, ...]) -> Runtimes:
    config = EngineConfig(
        Path("/data"), Path("/exec"), runtimes=configured, default_runtime=default
    )
    return Runtimes(config)


def test_ours_is_the_default_and_needs_no_program(programs: Path) -> None:
    install(programs, "runc", "crun")
    assert runtimes().check("") == "cais"
    assert runtimes().find("cais") is None


@pytest.mark.parametrize("name", ["runc", "io.containerd.runc.v2"])
def test_dockers_names_are_runc_where_it_is_installed_and_ours_elsewhere(
    programs: Path, name: str
) -> None:
    assert runtimes().check(name) == name
    assert runtimes().find(name) is None
    assert runtimes().describe()[name] == {"path": "cais-runtime"}
    install(programs, "runc")
    assert runtimes().find(name) == OciRuntime(str(programs / "runc"), (), f"/exec/runtimes/{name}")
    assert runtimes().describe()[name] == {"path": "runc"}


def test_crun_is_known_where_it_is_installed(programs: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown or invalid runtime name: crun"):
        runtimes().check("crun")
    install(programs, "crun")
    assert runtimes().check("crun") == "crun"


@pytest.mark.parametrize("name", ["kata", "io.containerd.kata.v2", "../runc", "x" * 1_000_000])
def test_an_unknown_name_is_refused_in_dockers_words(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="unknown or invalid runtime name: ") as refused:
        runtimes().check(name)
    assert len(str(refused.value)) < 120


def test_what_is_configured_counts_first_and_keeps_its_arguments(programs: Path) -> None:
    install(programs, "runc", "mine")
    known = runtimes("special", special=("mine", "--debug"), runc=("mine",))
    assert known.check("") == "special"
    assert known.find("special") == OciRuntime(
        str(programs / "mine"), ("--debug",), "/exec/runtimes/special"
    )
    assert known.describe()["special"] == {"path": "mine", "runtimeArgs": ["--debug"]}
    found = known.find("runc")
    assert found is not None
    assert found.path == str(programs / "mine")


def test_systemd_makes_the_groups_where_it_does_ours(programs: Path) -> None:
    install(programs, "crun")
    config = EngineConfig(Path("/data"), Path("/exec"), cgroup_driver="systemd")
    found = Runtimes(config).find("crun")
    assert found is not None
    assert found.arguments == ("--systemd-cgroup",)


def test_a_program_that_is_not_there_fails_the_start(programs: Path) -> None:
    del programs
    known = runtimes(gone=("/no/such/runtime",))
    assert known.check("gone") == "gone"
    with pytest.raises(LaunchError, match='exec: "/no/such/runtime": executable file not found'):
        known.find("gone")
