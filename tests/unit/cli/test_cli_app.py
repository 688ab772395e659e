"""The tree of commands, its start-up cost, and where a daemon may be started."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cais.cli import app
from cais.cli.launch import Roots
from cais.cli.session import Session
from cais.client import Address
from cais.errors import UnsupportedError
from cais.spec.version import VERSION

ROOT = Path(__file__).parents[3]


def every_place() -> list[tuple[str, str]]:
    groups = {"": app.COMMANDS, **app.GROUPS}
    return [(group, name) for group, names in groups.items() for name in names]


@pytest.mark.parametrize(("group", "name"), every_place())
def test_every_command_exists_and_helps(
    group: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run([*filter(None, [group]), name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: cais {f'{group} ' if group else ''}{name} [OPTIONS]")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nosuch"], 1, "unknown command: cais nosuch"),
        (["network", "nosuch"], 1, "unknown command: cais network nosuch"),
        (["trust", "x"], 1, "'docker trust' is not supported by cais yet"),
        (["build", "."], 1, "'docker build' is not supported by cais yet"),
        (["plugin", "ls"], 1, "'docker plugin' is not supported by cais yet"),
        (["network", "create", "x"], 1, "'docker network create' is not supported by cais yet"),
        (["network", "push"], 1, "unknown command: cais network push"),
        (["run"], 1, "'cais run' requires at least 1 argument"),
        (["rename", "a"], 1, "'cais rename' requires exactly 2 arguments"),
        (["ps", "x"], 1, "'cais ps' accepts no arguments"),
        (["run", "--nosuch", "x"], 125, "unknown flag: --nosuch"),
        (["ps", "-Z"], 125, "unknown shorthand flag"),
        (["logs", "-n"], 125, "-n"),
    ],
)
def test_usage_errors(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert not captured.out


def test_version_is_one_number() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_version_imports_nothing_slow() -> None:
    script = (
        "import sys; sys.argv = ['cais', '--version']; before = set(sys.modules);"
        "from cais.cli.main import main; main(); print(*sorted(set(sys.modules) - before))"
    )
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
    command = [sys.executable, "-S", "-c", path + script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version == f"cais version {VERSION}"
    assert set(modules.split()) == {
        "cais", "cais.cli", "cais.cli.main", "cais.spec", "cais.spec.version"
    }  # fmt: skip


def session(**environment: str) -> Session:
    return Session(environment)


@pytest.mark.parametrize(
    ("environment", "path", "may_start"),
    [
        ({}, "/run/cais/caisd.sock", True),
        ({"CAIS_HOST": "unix:///a.sock"}, "/a.sock", True),
        ({"DOCKER_HOST": "unix:///b.sock"}, "/b.sock", False),
        ({"CAIS_HOST": "unix:///a", "DOCKER_HOST": "unix:///b"}, "/a", True),
        ({"CAIS_DATA_ROOT": "/d", "CAIS_EXEC_ROOT": "/e"}, "/e/caisd.sock", True),
        ({"CAIS_EXEC_ROOT": "/e", "DOCKER_HOST": "unix:///b"}, "/e/caisd.sock", True),
    ],
)
def test_where_a_daemon_is_started(
    environment: dict[str, str], path: str, *, may_start: bool
) -> None:
    made = session(**environment)
    assert made.address == Address(path)
    assert made.may_start is may_start


def test_never_over_tcp() -> None:
    assert not session(CAIS_HOST="tcp://127.0.0.1:2375").may_start


def test_tls_is_refused_and_never_replaced_by_clear_text() -> None:
    made = session(DOCKER_HOST="tcp://127.0.0.1:2376", DOCKER_TLS_VERIFY="1")
    with pytest.raises(UnsupportedError, match=r"TLS .* tcp://127\.0\.0\.1:2376 is not supported"):
        _ = made.address
    assert session(DOCKER_TLS_VERIFY="1").address.path == "/run/cais/caisd.sock"


def test_a_data_root_of_ones_own_has_an_exec_root_of_its_own() -> None:
    first, second = Roots.choose("/data/a", None), Roots.choose("/data/b", None)
    assert first.exec != second.exec
    assert first.exec.startswith("/run/cais-")
    assert Roots.choose(None, None) == Roots("/var/lib/cais", "/run/cais", chosen=False)
