"""From flags to the create document, through the real parser."""

# ruff: noqa: E501 - a case stands on one line

import json
from pathlib import Path
from typing import Any

import click
import pytest

from cais.cli.commands.run import create, run
from cais.cli.creation import create_body
from cais.cli.failures import InvalidFlagError, exit_code_of
from cais.errors import CaisError, NotFoundError


def body_of(*words: str, command: click.Command = create) -> dict[str, Any]:
    context = command.make_context("create", list(words))
    options = dict(context.params)
    image, *rest = options.pop("arguments")
    return create_body(options, image, rest)


def host_of(*flags: str) -> dict[str, Any]:
    config = body_of(*flags, "busybox")["HostConfig"]
    assert isinstance(config, dict)
    return config


def test_words_after_the_image_are_the_command() -> None:
    body = body_of("-i", "busybox", "ls", "-l", "--rm", "-it")
    assert (body["Image"], body["Cmd"]) == ("busybox", ["ls", "-l", "--rm", "-it"])
    assert (body["OpenStdin"], body["Tty"], body["HostConfig"]["AutoRemove"]) == (
        True,
        False,
        False,
    )


def test_without_flags_nothing_is_asked() -> None:
    host = host_of()
    assert host["NetworkMode"] == "default"
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert not {"Memory", "NanoCpus", "PidsLimit", "Init", "IpcMode"} & set(host)


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (("-m", "64m"), "Memory", 64 << 20),
        (("--memory=1g",), "Memory", 1 << 30),
        (("--memory-swap", "-1"), "MemorySwap", -1),
        (("--cpus", "0.5"), "NanoCpus", 500_000_000),
        (("--cpus", ".1"), "NanoCpus", 100_000_000),
        (("--cpus=1.5",), "NanoCpus", 1_500_000_000),
        (("--pids-limit", "32"), "PidsLimit", 32),
        (("--pids-limit", "-1"), "PidsLimit", -1),
        (("--rm",), "AutoRemove", True),
        (("--rm=true",), "AutoRemove", True),
        (("--rm=false",), "AutoRemove", False),
        (("--init",), "Init", True),
        (("--net", "none"), "NetworkMode", "none"),
        (("--tmpfs", "/t"), "Tmpfs", {"/t": ""}),
        (("--tmpfs", "/t:size=1m,exec"), "Tmpfs", {"/t": "size=1m,exec"}),
        (("--ulimit", "nofile=100"), "Ulimits", [{"Name": "nofile", "Soft": 100, "Hard": 100}]),
        (("--ulimit", "core=1:2"), "Ulimits", [{"Name": "core", "Soft": 1, "Hard": 2}]),
        (("--restart", "on-failure:3"), "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (("-v", "vol:/d", "-v", "/h:/h:ro"), "Binds", ["vol:/d", "/h:/h:ro"]),
        (("--cap-drop", "ALL"), "CapDrop", ["ALL"]),
        (("--sysctl", "a.b=1"), "Sysctls", {"a.b": "1"}),
        (("--log-opt", "max-size=1k"), "LogConfig", {"Type": "", "Config": {"max-size": "1k"}}),
        (("-p", "8080:80"), "PortBindings", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        (("-p", "127.0.0.1:53:53/udp"), "PortBindings", {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]}),
        (("--shm-size", "1m"), "ShmSize", 1 << 20),
        (("--security-opt", "no-new-privileges"), "SecurityOpt", ["no-new-privileges"]),
    ],
)  # fmt: skip
def test_host_flags(flags: tuple[str, ...], field: str, value: object) -> None:
    assert host_of(*flags)[field] == value


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (("-h", "quay"), "Hostname", "quay"),
        (("-u", "nobody:staff"), "User", "nobody:staff"),
        (("-w", "/w"), "WorkingDir", "/w"),
        (("--entrypoint", "/e"), "Entrypoint", ["/e"]),
        (("--entrypoint", ""), "Entrypoint", [""]),
        (("--stop-signal", "USR1"), "StopSignal", "USR1"),
        (("-e", "A=b=c", "-e", "E="), "Env", ["A=b=c", "E="]),
        (("-l", "k=v", "-l", "bare"), "Labels", {"k": "v", "bare": ""}),
        (("-v", "/anonymous"), "Volumes", {"/anonymous": {}}),
        (("--expose", "80"), "ExposedPorts", {"80/tcp": {}}),
        (("--no-healthcheck",), "Healthcheck", {"Test": ["NONE"]}),
    ],
)
def test_container_flags(flags: tuple[str, ...], field: str, value: object) -> None:
    assert body_of(*flags, "busybox")[field] == value


def test_an_environment_name_takes_our_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OURS", "here")
    monkeypatch.delenv("NOBODYS", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\nF=1\nOURS\n")
    body = body_of("-e", "OURS", "-e", "NOBODYS", "--env-file", str(file), "busybox")
    assert body["Env"] == ["F=1", "OURS=here", "OURS=here"]


def test_a_value_that_looks_like_a_switch_is_a_value() -> None:
    assert body_of("-e", "--rm=true", "busybox")["Env"] == ["--rm=true"]


def test_a_relative_bind_starts_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert host_of("-v", "./a:/b", "-v", ".:/c:ro")["Binds"] == [
        f"{tmp_path}/a:/b",
        f"{tmp_path}:/c:ro",
    ]


def test_attached_streams() -> None:
    def attached(*words: str) -> tuple[bool, bool, bool]:
        body = body_of(*words, "busybox", command=run)
        return body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]

    assert attached() == (False, True, True)
    assert attached("-i") == (True, True, True)
    assert attached("-d") == attached("-d", "-i") == (False, False, False)
    assert attached("-a", "stderr") == (False, False, True)


def test_mounts() -> None:
    mount = "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave"
    assert host_of("--mount", mount)["Mounts"] == [
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True,
         "BindOptions": {"Propagation": "rslave"}},
    ]  # fmt: skip
    mount = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770"
    assert host_of("--mount", mount)["Mounts"] == [
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}}
    ]


def test_a_seccomp_profile_is_sent_not_named(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    (option,) = host_of("--security-opt", f"seccomp={profile}")["SecurityOpt"]
    assert json.loads(option.removeprefix("seccomp=")) == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert host_of("--security-opt", "seccomp=unconfined")["SecurityOpt"] == ["seccomp=unconfined"]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-m", "much"), 'invalid argument "much" for "-m, --memory" flag: invalid size: \'much\''),
        (("--cpus", "x"), 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (("--ulimit", "x"), 'invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x'),
        (("--mount", "type=bind"), 'invalid argument "type=bind" for "--mount" flag: target is required'),
        (("--device", ":"), 'invalid argument ":" for "--device" flag: invalid device specification: :'),
    ],
)  # fmt: skip
def test_bad_values_name_their_flag(flags: tuple[str, ...], text: str) -> None:
    with pytest.raises(InvalidFlagError) as failed:
        host_of(*flags)
    assert str(failed.value) == text


@pytest.mark.parametrize("flag", ["--env-file", "--label-file"])
def test_missing_files(flag: str) -> None:
    with pytest.raises(NotFoundError, match="open /no/such"):
        body_of(flag, "/no/such", "busybox")


@pytest.mark.parametrize("flags", [("--restart", "on-failure:x"), ("-e", "=x"), ("-a", "nowhere")])
def test_other_bad_values(flags: tuple[str, ...]) -> None:
    with pytest.raises(CaisError):
        body_of(*flags, "busybox")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH: unknown', 127),
        ("stat /x: no such file or directory", 127),
        ('exec: "/etc": permission denied', 126),
        ("is a directory", 126),
        ("No such image: x", 125),
    ],
)
def test_exit_codes(message: str, code: int) -> None:
    assert exit_code_of(message) == code
