"""caisd's command line and configuration file, in dockerd's words."""

import json
import logging
from pathlib import Path

import pytest

from cais.api.daemon_flags import FLAGS, InvalidFlagError, merge, parse_flags, usage
from cais.api.listeners import TcpAddress, UnixAddress
from cais.api.options import DaemonOptions, load_options
from cais.wiring import main


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["-H", "unix:///a", "--host=unix:///b", "-Hunix:///c", "-H=unix:///d"],
         {"host": ["unix:///a", "unix:///b", "unix:///c", "unix:///d"]}),
        (["-D"], {"debug": True}),
        (["--debug=false"], {"debug": False}),
        (["-Dl", "warn"], {"debug": True, "log-level": "warn"}),
        (["--data-root", "/x", "--data-root=/y"], {"data-root": "/y"}),
        (["--shutdown-timeout", "3"], {"shutdown-timeout": 3}),
        (["--"], {}),
    ],
)  # fmt: skip
def test_flags(arguments: list[str], values: dict[str, object]) -> None:
    assert parse_flags(arguments) == values


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=1"], "unknown flag: --foo"),
        (["-Z"], "unknown shorthand flag: 'Z' in -Z"),
        (["-DZ"], "unknown shorthand flag: 'Z' in -Z"),
        (["--bip"], "flag needs an argument: --bip"),
        (["-H"], "flag needs an argument: 'H' in -H"),
        (["--debug=maybe"],
         ('invalid argument "maybe" for "-D, --debug" flag:'
         ' strconv.ParseBool: parsing "maybe": invalid syntax')),
        (["--shutdown-timeout=x"],
         ('invalid argument "x" for "--shutdown-timeout" flag:'
         ' strconv.ParseInt: parsing "x": invalid syntax')),
        (["word"], '"caisd" accepts no arguments'),
    ],
)  # fmt: skip
def test_bad_flags(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"{text}\nSee 'caisd --help'.\n"


def load(arguments: list[str], file: object, tmp_path: Path) -> DaemonOptions:
    path = tmp_path / "daemon.json"
    path.write_text(file if isinstance(file, str) else json.dumps(file))
    return load_options(parse_flags([*arguments, "--config-file", str(path)]))


def test_defaults(tmp_path: Path) -> None:
    options = load([], {}, tmp_path)
    assert options.hosts == (UnixAddress("/run/cais/caisd.sock"),)
    assert options.data_root == Path("/var/lib/cais")
    assert options.pidfile == Path("/run/cais/caisd.pid")
    assert options.cgroup_parent == "/cais"
    assert (options.log_max_size_bytes, options.log_max_files) == (10 * 1024**2, 5)
    assert options.log_level == logging.INFO
    assert options.tls is None


def test_the_cgroup_driver(tmp_path: Path) -> None:
    options = load(["--exec-opt", "native.cgroupdriver=systemd"], {}, tmp_path)
    assert (options.cgroup_driver, options.cgroup_parent) == ("systemd", "system.slice")
    file = {"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": "a-b.slice"}
    assert load([], file, tmp_path).cgroup_parent == "a-b.slice"
    assert load([], {}, tmp_path).cgroup_driver == "cgroupfs"


def test_file_and_flags_make_the_options(tmp_path: Path) -> None:
    file = {
        "hosts": ["unix:///tmp/a", "tcp://[::1]:2376"],
        "debug": True,
        "log-opts": {"max-size": "1m", "max-file": "2"},
        "labels": ["a=b"],
        "tlsverify": True, "tlscert": "/c", "tlskey": "/k", "tlscacert": "/a",
    }  # fmt: skip
    options = load(["--exec-root", "/tmp/x", "--cgroup-parent", "a/b"], file, tmp_path)
    assert options.hosts == (UnixAddress("/tmp/a"), TcpAddress("::1", 2376))
    assert options.pidfile == Path("/tmp/x/caisd.pid")
    assert options.cgroup_parent == "/a/b"
    assert (options.log_max_size_bytes, options.log_max_files) == (1_000_000, 2)
    assert options.log_level == logging.DEBUG
    assert options.tls is not None
    assert options.tls.authority == Path("/a")


@pytest.mark.parametrize(
    ("arguments", "file", "text"),
    [
        ([], {"foo": 1, "bar": 2}, "don't match any configuration option: bar, foo"),
        ([], "{", "unable to configure the daemon with file .*: invalid JSON"),
        ([], "[]", "not a JSON object"),
        ([], {"debug": "yes"}, "debug: not a bool"),
        ([], {"hosts": "unix:///a"}, "hosts: not a list"),
        ([], {"config-file": "/x"}, "don't match any configuration option: config-file"),
        (["-D"], {"debug": True},
         (r"the following directives are specified both as a flag and in the configuration file:"
         r" debug: \(from flag: true, from file: true\)")),
        (["-H", "foo://bar"], {}, "Invalid bind address format: foo://bar"),
        (["-H", "unix://relative"], {}, "Invalid bind address format"),
        (["-H", "fd://"], {}, "fd:// is not supported"),
        (["-H", "tcp://h:0"], {}, "Invalid bind address format"),
        (["--log-level", "loud"], {}, 'invalid logging level: "loud"'),
        (["--log-driver", "syslog"], {}, "log driver 'syslog' is not supported"),
        (["--log-opt", "max-size"], {}, "invalid key/value pair format"),
        (["--log-opt", "max-size=x"], {}, "invalid size: 'x'"),
        (["--log-opt", "max-file=0"], {}, "'max-file' cannot be less than 1"),
        (["--log-opt", "tag=x"], {}, "unknown log opt 'tag' for json-file log driver"),
        (["--cgroup-parent", "../x"], {}, "not the path of a control group"),
        (["--cgroup-parent", "/"], {}, "not the path of a control group"),
        (["--exec-opt", "native.umask=normal"], {}, "invalid exec-opt: native.umask"),
        (["--exec-opt", "native.cgroupdriver=x"], {}, "native.cgroupdriver option x not supported"),
        (
            ["--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "/a"],
            {},
            'should be a valid slice named as "xxx.slice"',
        ),
        (["--bip", "300.0.0.1/8"], {}, "invalid CIDR address"),
        (["--bip", "10.0.0.1"], {}, "invalid CIDR address"),
        (["--bridge", "a/b"], {}, "not the name of a network interface"),
        (["--bridge", "br0", "--bip", "10.0.0.1/8"], {}, "mutually exclusive options"),
        (["--bridge", "none"], {}, "--bridge=none is not supported"),
        (["--label", "x"], {}, "bad attribute format: x"),
        (["--tls"], {}, "use --tlsverify"),
        (["--tlsverify"], {}, "--tlsverify needs --tlscert"),
    ],
)  # fmt: skip
def test_bad_options(arguments: list[str], file: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFlagError, match=text):
        load(arguments, file, tmp_path)


def test_named_file_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(InvalidFlagError, match="no such file or directory"):
        load_options({"config-file": str(path)})


def test_merge_prefers_nobody() -> None:
    assert merge({"debug": True}, {"group": "g"}) == {"debug": True, "group": "g"}


def test_usage_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.strip() == usage()
    for flag in FLAGS:
        assert f"--{flag.name}" in usage()


def test_version_and_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v"]) == 0
    assert capsys.readouterr().out.startswith("caisd version ")
    path = tmp_path / "c.json"
    path.write_text("{}")
    assert main(["--validate", "--config-file", str(path)]) == 0
    path.write_text('{"x": 1}')
    assert main(["--validate", "--config-file", str(path)]) == 1


def test_runtimes_of_the_command_line_and_of_the_file(tmp_path: Path) -> None:
    flags = [
        "--add-runtime",
        "Mine=/opt/mine",
        "--add-runtime=other=runc",
        "--default-runtime=mine",
    ]
    loaded = load(flags, {}, tmp_path)
    assert loaded.runtimes == {"mine": ("/opt/mine",), "other": ("runc",)}
    assert loaded.default_runtime == "mine"
    runtimes = {"mine": {"path": "/opt/mine", "runtimeArgs": ["--debug", "--x=1"]}}
    loaded = load([], {"runtimes": runtimes, "default-runtime": "crun"}, tmp_path)
    assert loaded.runtimes == {"mine": ("/opt/mine", "--debug", "--x=1")}
    assert loaded.default_runtime == "crun"


@pytest.mark.parametrize(
    ("flags", "file", "text"),
    [
        (["--add-runtime=mine"], {}, "invalid runtime argument: mine"),
        (["--add-runtime==/x"], {}, "invalid runtime argument: =/x"),
        (["--add-runtime=a/b=/x"], {}, "invalid runtime argument: a/b=/x"),
        (["--add-runtime=..=/x"], {}, "invalid runtime argument: ..=/x"),
        (["--add-runtime=a=/x", "--add-runtime=A=/y"], {}, "runtime 'a' was already defined"),
        (["--add-runtime=cais=/x"], {}, "runtime name 'cais' is reserved"),
        (["--default-runtime=kata"], {}, "specified default runtime 'kata' does not exist"),
        ([], {"runtimes": {"a": {}}}, "runtime a: either a runtimeType or a path must be"),
        ([], {"runtimes": {"a": {"path": "x", "runtimeArgs": "y"}}}, "must be a list of strings"),
        ([], {"runtimes": {"a": {"runtimeType": "io.containerd.kata.v2"}}}, "not supported by"),
        ([], {"runtimes": {"a": {"path": "x", "more": 1}}}, "runtime a: unknown members: more"),
        ([], {"runtimes": {"../a": {"path": "x"}}}, "not a name and an object"),
        (["--add-runtime=a=/x"], {"runtimes": {"b": {"path": "x"}}},
         r"runtimes: \(from flag: \[a=/x\], from file: \[b\]\)"),
    ],
)  # fmt: skip
def test_bad_runtimes(flags: list[str], file: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFlagError, match=text):
        load(flags, file, tmp_path)
