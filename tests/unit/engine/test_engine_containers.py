"""Creating, naming, finding, listing, describing and updating containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cais.engine.errors import ContainerNotFoundError, NameConflictError
from cais.engine.listing import human_duration
from cais.errors import ConflictError, InvalidArgumentError, NotFoundError, UnsupportedError
from cais.linux.tree_size import tree_size_at
from cais.spec.container import (
    EndpointIpamConfig,
    EndpointSettings,
    HealthConfig,
    LogConfig,
    NetworkingConfig,
    PortBinding,
    RestartPolicy,
    UpdateBody,
)
from cais.spec.image import ContainerConfig as ImageDefaults
from cais.spec.image import Healthcheck

_REFUSED_ENDPOINT = "^invalid config for network bridge: invalid endpoint settings:"
_REFUSED_ADDRESS = "user specified IP address is supported on user defined networks only"


async def test_a_taken_name_is_refused_with_dockers_text(bench: Any) -> None:
    container_id = await bench.create("web")
    with pytest.raises(NameConflictError) as conflict:
        await bench.create("/web")
    assert str(conflict.value) == (
        f'Conflict. The container name "/web" is already in use by container "{container_id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def at(address: str) -> NetworkingConfig:
    return NetworkingConfig({"default": EndpointSettings(ipam_config=EndpointIpamConfig(address))})


@pytest.mark.parametrize("name", ["-web", "w", "we b", "wéb", "web\n", "a/b"])
async def test_malformed_names_are_refused_and_nothing_stays(bench: Any, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are"):
        await bench.create(name)
    assert len(bench.core.table) == 0


async def test_an_automatic_name_has_dockers_shape(bench: Any) -> None:
    await bench.create()
    (container,) = bench.core.table
    adjective, surname = container.record.name.removeprefix("/").split("_")
    assert adjective.isalpha()
    assert surname.isalpha()


async def test_references(bench: Any) -> None:
    container_id = await bench.create("web")
    for ref in (container_id, container_id[:12], container_id[:1], "web", "/web"):
        assert bench.engine.containers.resolve(ref).id == container_id
    named = await bench.create(container_id[:12])
    assert bench.engine.containers.resolve(container_id[:12]).id == named
    for ref in ("", "nothing", "w", container_id + "0"):
        with pytest.raises(ContainerNotFoundError, match=f"^No such container: {ref}$"):
            bench.engine.containers.resolve(ref)


async def test_an_ambiguous_prefix_is_refused(bench: Any, monkeypatch: Any) -> None:
    ids = iter(("ab" * 32, "ac" * 32))
    monkeypatch.setattr("cais.engine.creation.new_id", lambda: next(ids))
    await bench.create()
    await bench.create()
    with pytest.raises(InvalidArgumentError, match="multiple IDs found with provided prefix: a"):
        bench.engine.containers.resolve("a")
    assert bench.engine.containers.resolve("ac").id == "ac" * 32


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"cmd": None}, InvalidArgumentError, "no command specified"),
        ({"image": "nothing"}, NotFoundError, "No such image: nothing:latest"),
        ({"env": ["=x"]}, InvalidArgumentError, "invalid environment variable: =x"),
        ({"working_dir": "rel"}, InvalidArgumentError, "needs to be an absolute path"),
        ({"stop_signal": "NOPE"}, InvalidArgumentError, "invalid signal: NOPE"),
        ({"hostname": "bad name"}, InvalidArgumentError, "invalid hostname format"),
        ({"memory": 1}, InvalidArgumentError, "Minimum memory limit allowed is 6MB"),
        (
            {"restart_policy": RestartPolicy("always"), "auto_remove": True},
            InvalidArgumentError,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"port_bindings": {"8080/tcp": [PortBinding("", "80")]}},
            UnsupportedError,
            r"publishing ports is not supported yet by this version \(PortBindings: 8080/tcp\)",
        ),
        (
            {"networking": NetworkingConfig({"mine": EndpointSettings()})},
            InvalidArgumentError,
            "network mine not found",
        ),
        ({"log_config": LogConfig("syslog")}, InvalidArgumentError, "no log driver named 'syslog'"),
        (
            {"log_config": LogConfig("json-file", {"colour": "red"})},
            InvalidArgumentError,
            "unknown log opt 'colour' for json-file log driver",
        ),
        (
            {"log_config": LogConfig("json-file", {"compress": "true", "max-file": "3"})},
            InvalidArgumentError,
            "^compress cannot be true when max-file is less than 2 or max-size is not set$",
        ),
        (
            {"log_config": LogConfig("json-file", {"compress": "1", "max-size": "1m"})},
            InvalidArgumentError,
            "^compress cannot be true when max-file is less than 2 or max-size is not set$",
        ),
        (
            {
                "log_config": LogConfig(
                    "json-file", {"compress": "true", "max-size": "1m", "max-file": "2"}
                )
            },
            UnsupportedError,
            "log opt compress=true is not supported",
        ),
        (
            {"log_config": LogConfig("json-file", {"compress": "maybe"})},
            InvalidArgumentError,
            'strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            {"networking": at("999.2.3.4")},
            InvalidArgumentError,
            f"{_REFUSED_ENDPOINT}\n\\* {_REFUSED_ADDRESS}\n\\* invalid IPv4 address: 999.2.3.4$",
        ),
        (
            {"networking": at("172.17.0.9")},
            InvalidArgumentError,
            f"{_REFUSED_ENDPOINT}\n{_REFUSED_ADDRESS}$",
        ),
        (
            {"healthcheck": HealthConfig(["CMD", "true"], interval=5)},
            InvalidArgumentError,
            "Interval in Healthcheck cannot be less than 1ms",
        ),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    bench: Any, options: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await bench.create("web", volumes={"/data": {}}, **options)
    assert len(bench.core.table) == 0
    assert bench.snapshots.active == {}
    assert (await bench.engine.volumes.list())["Volumes"] == []
    await bench.create("web")


async def test_a_failure_at_the_last_step_undoes_the_others(bench: Any, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.core.copies, "put", fail)
    with pytest.raises(OSError, match="No space left"):
        await bench.create("web", volumes={"/data": {}})
    assert bench.snapshots.active == {}
    assert (await bench.engine.volumes.list())["Volumes"] == []
    monkeypatch.undo()
    await bench.reopen()
    assert len(bench.core.table) == 0
    await bench.create("web")


async def test_the_image_fills_what_the_request_leaves_open(bench: Any) -> None:
    bench.images.config = ImageDefaults(
        user="nobody",
        env=["A=image", "B=image"],
        entrypoint=["/entry"],
        cmd=["default"],
        working_dir="/w",
        labels={"x": "image", "y": "image"},
        stop_signal="SIGINT",
        healthcheck=Healthcheck(test=["CMD", "check"], retries=7),
    )
    container_id = await bench.create(cmd=None, env=["A=mine"], labels={"x": "mine"})
    document = await bench.engine.containers.inspect(container_id)
    config = document["Config"]
    assert (document["Path"], document["Args"]) == ("/entry", ["default"])
    assert config["Env"] == ["A=mine", "B=image"]
    assert config["Labels"] == {"x": "mine", "y": "image"}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == (
        "nobody",
        "/w",
        "SIGINT",
    )
    assert config["Healthcheck"]["Test"] == ["CMD", "check"]
    cleared = await bench.create(entrypoint=[""], cmd=["only"])
    assert (await bench.engine.containers.inspect(cleared))["Path"] == "only"
    own = await bench.create(entrypoint=["mine"], cmd=None)
    assert (await bench.engine.containers.inspect(own))["Args"] == []


async def test_inspect_shows_the_defaults_and_the_network(bench: Any) -> None:
    container_id = await bench.run("web", exposed_ports={"80/tcp": {}})
    document = await bench.engine.containers.inspect("web", size=True)
    host = document["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"], host["ShmSize"]) == ("bridge", "private", 1 << 26)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert document["Config"]["Hostname"] == container_id[:12]
    settings = document["NetworkSettings"]
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert settings["Ports"] == {"80/tcp": None}
    assert document["GraphDriver"]["Data"]["UpperDir"] == f"/u/{container_id}"
    assert document["LogPath"].endswith(f"/{container_id}/{container_id}-json.log")
    assert (document["SizeRw"], document["SizeRootFs"]) == (42, 42)
    assert document["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert msgspec.json.encode(document)


async def test_what_a_run_leaves_to_be_inspected(bench: Any) -> None:
    container_id = await bench.create("web")
    document = await bench.engine.containers.inspect("web")
    assert document["LogPath"] == ""
    assert document["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] == ""
    await bench.engine.lifecycle.start("web")
    await bench.end(container_id)
    await bench.reopen()
    document = await bench.engine.containers.inspect("web")
    assert document["LogPath"].endswith(f"/{container_id}-json.log")
    bridge = document["NetworkSettings"]["Networks"]["bridge"]
    assert len(bridge["NetworkID"]) == 64
    assert (bridge["EndpointID"], bridge["IPAddress"]) == ("", "")
    filters = {"network": [bridge["NetworkID"]]}
    assert await names(bench, all=True, filters=filters) == ["web"]


async def names(bench: Any, **arguments: Any) -> list[str]:
    return [one["Names"][0][1:] for one in await bench.engine.containers.list(**arguments)]


async def test_lists_and_their_filters(bench: Any) -> None:
    for name in ("aa", "bb", "cc", "dd"):
        await bench.create(name, labels={"n": name, "all": "1"})
        await bench.clock.advance(1)
    await bench.engine.lifecycle.start("bb")
    await bench.engine.lifecycle.start("cc")
    await bench.end(bench.engine.containers.resolve("cc").id, 3)
    await bench.engine.lifecycle.start("dd")
    await bench.engine.lifecycle.pause("dd")
    assert await names(bench) == ["dd", "bb"]
    assert await names(bench, all=True) == ["dd", "cc", "bb", "aa"]
    assert await names(bench, limit=3) == ["dd", "cc", "bb"]
    bb = bench.engine.containers.resolve("bb").id
    cases: list[tuple[dict[str, list[str]], list[str]]] = [
        ({"status": ["exited", "created"]}, ["cc", "aa"]),
        ({"status": ["paused"]}, ["dd"]),
        ({"exited": ["3"]}, ["cc"]),
        ({"exited": ["0"]}, []),
        ({"name": ["^/?b"]}, ["bb"]),
        ({"id": [bb[:10]]}, ["bb"]),
        ({"label": ["n=dd"]}, ["dd"]),
        ({"label": ["all", "n=bb"]}, ["bb"]),
        ({"before": ["cc"]}, ["bb", "aa"]),
        ({"since": ["bb"]}, ["dd", "cc"]),
        ({"ancestor": ["busybox"]}, ["dd", "bb"]),
        ({"ancestor": ["other"]}, []),
        ({"network": ["bridge"]}, ["dd", "bb"]),
        ({"health": ["none"]}, ["dd", "bb"]),
        ({"is-task": ["true"]}, []),
    ]
    for filters, wanted in cases:
        assert await names(bench, filters=filters) == wanted, filters
    for bad in ({"colour": ["red"]}, {"status": ["fine"]}, {"exited": ["x"]}, {"name": ["("]}):
        with pytest.raises(InvalidArgumentError, match="invalid filter"):
            await names(bench, filters=bad)
    with pytest.raises(ContainerNotFoundError):
        await names(bench, filters={"since": ["nothing"]})


async def test_human_states(bench: Any) -> None:
    container_id = await bench.run("web", restart_policy=RestartPolicy("always"))

    async def shown() -> str:
        (one,) = await bench.engine.containers.list(all=True)
        return str(one["Status"])

    bench.core.table.resolve("web").record.state.started_at_ns = bench.clock.wall_ns()
    await bench.clock.advance(125)
    assert await shown() == "Up 2 minutes"
    await bench.engine.lifecycle.pause("web")
    assert await shown() == "Up 2 minutes (Paused)"
    await bench.engine.lifecycle.unpause("web")
    await bench.end(container_id, 3)
    bench.core.table.resolve("web").record.state.finished_at_ns = bench.clock.wall_ns()
    assert await shown() == "Restarting (3) Less than a second ago"
    await bench.engine.lifecycle.stop("web")
    assert await shown() == "Exited (3) Less than a second ago"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1.5, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (3600 * 47, "47 hours"),
        (3600 * 24 * 13, "13 days"),
        (3600 * 24 * 30, "4 weeks"),
        (3600 * 24 * 100, "3 months"),
        (3600 * 24 * 800, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


async def test_rename(bench: Any) -> None:
    await bench.create("one")
    await bench.create("two")
    with pytest.raises(NameConflictError):
        await bench.engine.containers.rename("one", "two")
    with pytest.raises(InvalidArgumentError, match="same name as its current name"):
        await bench.engine.containers.rename("one", "one")
    with pytest.raises(InvalidArgumentError, match="Neither old nor new names may be empty"):
        await bench.engine.containers.rename("one", "")
    await bench.engine.containers.rename("one", "three")
    await bench.create("one")
    await bench.reopen()
    assert {one.record.name for one in bench.core.table} == {"/one", "/two", "/three"}
    assert bench.engine.containers.resolve("three")


async def test_update_changes_limits_of_what_runs(bench: Any) -> None:
    container_id = await bench.run()
    await bench.engine.containers.update(container_id, UpdateBody(cpu_shares=512))
    assert ("update", container_id) == next(
        call for call in bench.shim.calls if call[0] == "update"
    )[:2]
    host = (await bench.engine.containers.inspect(container_id))["HostConfig"]
    assert (host["CpuShares"], host["ShmSize"]) == (512, 1 << 26)
    assert bench.actions()[-1] == "update"


def write_log(directory: str) -> int:
    Path(directory).mkdir()
    Path(directory, "log").write_bytes(b"x" * 10_000)
    return tree_size_at(directory)[1]


async def test_prune(bench: Any) -> None:
    await bench.run("runs")
    await bench.create("keep", labels={"keep": "1"})
    created = await bench.create("gone")
    freed = write_log(bench.core.paths.container(created))
    answer = await bench.engine.containers.prune({"label!": ["keep"]})
    assert answer == {"ContainersDeleted": [created], "SpaceReclaimed": freed}
    assert await names(bench, all=True) == ["keep", "runs"] or await names(bench, all=True) == [
        "runs",
        "keep",
    ]
    assert (await bench.engine.containers.prune({"until": ["1h"]}))["ContainersDeleted"] is None


async def test_anonymous_volumes_go_with_the_container_when_asked(bench: Any) -> None:
    kept = await bench.create(volumes={"/data": {}}, binds=["named:/n"])
    gone = await bench.create(volumes={"/data": {}}, binds=["named:/n"])
    assert len((await bench.engine.volumes.list())["Volumes"]) == 3
    with pytest.raises(ConflictError, match="volume is in use"):
        await bench.engine.volumes.remove("named")
    await bench.engine.containers.remove(gone, volumes=True)
    assert len((await bench.engine.volumes.list())["Volumes"]) == 2
    await bench.engine.containers.remove(kept)
    assert len((await bench.engine.volumes.list())["Volumes"]) == 2
    await bench.engine.volumes.remove("named")


async def test_an_unknown_network_is_found_out_at_the_start(bench: Any) -> None:
    container_id = await bench.create(network_mode="mine")
    with pytest.raises(NotFoundError, match="network mine not found"):
        await bench.engine.lifecycle.start(container_id)
    state = (await bench.engine.containers.inspect(container_id))["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 128)


async def test_joining_a_network_needs_a_running_container(bench: Any) -> None:
    donor = await bench.create("donor")
    joiner = await bench.create("joiner", network_mode="container:donor")
    with pytest.raises(
        ConflictError, match=f"cannot join network of a non running container: {donor}"
    ):
        await bench.engine.lifecycle.start(joiner)
    await bench.engine.lifecycle.start(donor)
    await bench.engine.lifecycle.start(joiner)
    document = await bench.engine.containers.inspect(joiner)
    assert document["HostsPath"].endswith(f"/{donor}/hosts")
    assert document["NetworkSettings"]["Networks"] == {}
