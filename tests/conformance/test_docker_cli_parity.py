"""Small things in which Docker's own daemon was caught behaving differently from ours."""

import re

import pytest

from cais.testing.archives import docker_archive, tar_of
from cais.testing.daemon import TestDaemon


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        (("--group-add", "777"), "groups=0(root),777"),
        (("-u", "nobody", "--group-add", "5"), "groups=5,50(staff),65534(nobody)"),
        (("-u", "99999", "--group-add", "staff"), "groups=0(root),50(staff)"),
    ],
)
def test_additional_groups(daemon: TestDaemon, options: tuple[str, ...], groups: str) -> None:
    assert daemon.docker("run", "--rm", *options, "busybox", "id").stdout.rstrip().endswith(groups)


def test_an_unknown_additional_group_is_refused_to_root_too(daemon: TestDaemon) -> None:
    result = daemon.docker("run", "--rm", "--group-add", "nosuch", "busybox", check=False)
    assert result.returncode == 125
    assert re.search(
        "Unable to find group nosuch: no matching entries in group file", result.stderr
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-u", "nosuch"), "daemon: unable to find user nosuch: no matching entries in passwd"),
        (("--volumes-from", "nosuch"), "daemon: No such container: nosuch"),
    ],
)
def test_texts_without_the_runtime_in_them(
    daemon: TestDaemon, options: tuple[str, ...], said: str
) -> None:
    result = daemon.docker("run", "--rm", *options, "busybox", "true", check=False)
    assert result.returncode == 125
    assert said in result.stderr
    assert "Unable to find image" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ps", "--filter", "publish=x"), "invalid filter 'publish=x'"),
        (("ps", "--filter", "expose=x"), "invalid filter 'expose=x'"),
        (("network", "ls", "--filter", "type=x"), "invalid filter: 'type'='x'"),
        (("volume", "ls", "--filter", "dangling=x"), "invalid filter 'dangling=[x]'"),
        (("volume", "create", "bad name"), 'create bad name: "bad name" includes invalid'),
        (("container", "prune", "-f", "--filter", "until=x"), 'as time or duration: "x"'),
    ],
)
def test_values_that_mean_nothing(
    daemon: TestDaemon, arguments: tuple[str, ...], said: str
) -> None:
    result = daemon.docker(*arguments, check=False)
    assert result.returncode == 1
    assert said in result.stderr


def test_exposed_ports_are_found(daemon: TestDaemon) -> None:
    daemon.docker("create", "--name", "exposing", "--expose", "81", "busybox")
    try:
        for value in ("81", "81/tcp"):
            found = daemon.docker("ps", "-aq", "--filter", f"expose={value}").stdout
            assert len(found.split()) == 1
        assert not daemon.docker("ps", "-aq", "--filter", "expose=82").stdout
    finally:
        daemon.docker("rm", "exposing")


def test_one_network_for_one_container(daemon: TestDaemon) -> None:
    two = ("--network", "none", "--network", "host")
    result = daemon.docker("run", "--rm", *two, "busybox", "true", check=False)
    assert result.returncode == 125
    assert "Container cannot be connected to network endpoints: host, none" in result.stderr


def test_nothing_is_masked_when_privileged(daemon: TestDaemon) -> None:
    daemon.docker("create", "--name", "bare", "--privileged", "busybox")
    try:
        paths = "{{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}}"
        assert daemon.docker("inspect", "-f", paths, "bare").stdout == "null null\n"
    finally:
        daemon.docker("rm", "bare")


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("max-file=3", 0, ""),
        ("mode=nosuch", 125, "logger: logging mode not supported: nosuch"),
    ],
)
def test_log_options(daemon: TestDaemon, option: str, code: int, said: str) -> None:
    result = daemon.docker("run", "--rm", "--log-opt", option, "busybox", "true", check=False)
    assert result.returncode == code
    assert said in result.stderr


def test_a_container_outlives_the_name_of_its_image(daemon: TestDaemon) -> None:
    daemon.docker("tag", "busybox", "fleeting")
    daemon.docker("create", "--name", "heir", "fleeting")
    try:
        ask = ("ps", "-a", "--no-trunc", "--filter", "name=heir", "--format", "{{.Image}}")
        assert daemon.docker(*ask).stdout == "fleeting\n"
        daemon.docker("rmi", "-f", "fleeting")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", daemon.docker(*ask).stdout)
    finally:
        daemon.docker("rm", "heir")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--pids-limit=99999999999", "unable to start container process: write '99999999999' /"),
        ("--sysctl=kernel.shmmax=x", "process: write /proc/sys/kernel/shmmax: invalid argument"),
    ],
)
def test_what_the_kernel_refuses(daemon: TestDaemon, option: str, said: str) -> None:
    result = daemon.docker("run", "--rm", option, "busybox", "true", check=False)
    assert result.returncode == 125
    assert said in result.stderr
    assert "Errno" not in result.stderr


def test_what_a_container_shows_before_and_after_its_run(daemon: TestDaemon) -> None:
    daemon.docker("create", "--name", "seen", "--pid", "host", "busybox", "true")
    try:
        shown = "{{.LogPath}}|{{json .HostConfig.SecurityOpt}}"
        assert daemon.docker("inspect", "-f", shown, "seen").stdout == '|["label=disable"]\n'
        daemon.docker("start", "-a", "seen")
        assert "-json.log|" in daemon.docker("inspect", "-f", shown, "seen").stdout
        network = daemon.docker("network", "inspect", "-f", "{{.Id}}", "bridge").stdout.strip()
        one = "{{.NetworkSettings.Networks.bridge.NetworkID}}"
        assert daemon.docker("inspect", "-f", one, "seen").stdout.strip() == network
        listed = ("ps", "-a", "--filter", f"network={network}", "--format", "{{.Names}}")
        assert daemon.docker(*listed).stdout == "seen\n"
    finally:
        daemon.docker("rm", "-f", "seen")


def test_an_archive_for_another_platform(daemon: TestDaemon) -> None:
    archive = docker_archive("platforms:1", [tar_of({"f": b"x"})])
    refused = daemon.docker("load", "--platform", "linux/s390x", stdin=archive, check=False)
    if "unknown flag: --platform" in refused.stderr:
        pytest.skip("this docker CLI is older than the flag")
    assert refused.returncode == 1
    said = "image platforms:1 doesn't provide the requested platform (linux/s390x)"
    assert said in refused.stderr
    assert not daemon.docker("images", "-q", "platforms").stdout


def test_a_relative_volume_of_an_image(daemon: TestDaemon) -> None:
    content = tar_of({"f": b"x"})
    daemon.docker("import", "-c", "VOLUME data", "-c", 'CMD ["true"]', "-", "rel", stdin=content)
    try:
        daemon.docker("create", "--name", "rel", "rel")
        shown = "{{range .Mounts}}{{.Destination}}{{end}}"
        assert daemon.docker("inspect", "-f", shown, "rel").stdout == "/data\n"
    finally:
        daemon.docker("rm", "-fv", "rel", check=False)
        daemon.docker("rmi", "rel")
