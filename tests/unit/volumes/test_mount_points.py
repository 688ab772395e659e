from pathlib import Path
from typing import Any

import pytest

from cais.spec.container import HostConfig
from cais.spec.conversion import convert
from cais.volumes.errors import InvalidMountError, InvalidVolumeNameError
from cais.volumes.mounts import MountPoint, VolumeRequest, make_sources, resolve_mounts


class Volumes:
    def __init__(self) -> None:
        self.requests: list[VolumeRequest] = []

    def __call__(self, request: VolumeRequest) -> tuple[str, str]:
        self.requests.append(request)
        name = request.name or "anonymous"
        return name, f"/volumes/{name}/_data"


def resolve(
    host_config: dict[str, Any] | None = None,
    *,
    volumes: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    others: dict[str, list[MountPoint]] | None = None,
    made: Volumes | None = None,
) -> list[MountPoint]:
    return resolve_mounts(
        volumes=volumes,
        host_config=convert(host_config or {}, HostConfig),
        image_volumes=image,
        create_volume=made or Volumes(),
        volumes_from=(others or {}).__getitem__,
    )


def test_a_bind() -> None:
    (point,) = resolve({"Binds": ["/host//dir/:/in/side/:ro,rslave"]})
    assert point.to_docker() == {
        "Type": "bind",
        "Source": "/host/dir",
        "Destination": "/in/side",
        "Mode": "ro,rslave",
        "RW": False,
        "Propagation": "rslave",
    }
    assert point.create_source
    assert point.read_only_recursive


def test_a_bind_is_private_and_writable_unless_said() -> None:
    (point,) = resolve({"Binds": ["/host:/in"]})
    assert (point.rw, point.propagation, point.mode) == (True, "rprivate", "")
    assert not point.read_only_recursive


def test_a_named_volume() -> None:
    made = Volumes()
    (point,) = resolve({"Binds": ["data:/d"], "VolumeDriver": "local"}, made=made)
    assert point.to_docker() == {
        "Type": "volume",
        "Name": "data",
        "Source": "/volumes/data/_data",
        "Destination": "/d",
        "Driver": "local",
        "Mode": "z",
        "RW": True,
        "Propagation": "",
    }
    assert point.copy_up
    assert [request.name for request in made.requests] == ["data"]
    assert not resolve({"Binds": ["data:/d:nocopy"]})[0].copy_up


@pytest.mark.parametrize(
    "text",
    ["", ":", "/x:", ":/x", "/x", "/a:/b:rw:z", "/a:ro", "a:b:c:d", "/a::rw"],
)
def test_malformed_binds(text: str) -> None:
    with pytest.raises(InvalidMountError) as refused:
        resolve({"Binds": [text]})
    assert str(refused.value) == f"invalid volume specification: '{text}'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "/a:b",
            ": invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "/a:/",
            ": invalid specification: destination can't be '/'",
        ),
        (
            "/a:/x/..",
            ": invalid specification: destination can't be '/'",
        ),
        ("/a:/b:rx", "invalid mode: rx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:ro,ro", "invalid mode: ro,ro"),
        ("/a:/b:nocopy", "invalid mode: nocopy"),
        ("/a:/b:shared,slave", "invalid mode: shared,slave"),
        ("/a:/b:ro,", "invalid mode: ro,"),
    ],
)
def test_binds_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(InvalidMountError) as refused:
        resolve({"Binds": [text]})
    if message.startswith(":"):
        message = f"invalid volume specification: '{text}'{message}"
    assert str(refused.value) == message


def test_a_relative_source_is_no_volume_name() -> None:
    with pytest.raises(InvalidVolumeNameError, match="use absolute path"):
        resolve({"Binds": ["./src:/d"]})


def test_a_destination_with_dots_is_cleaned() -> None:
    assert resolve({"Binds": ["/a:/x/../../etc//y/."]})[0].destination == "/etc/y"
    assert resolve({"Binds": ["/a://x"]})[0].destination == "/x"


@pytest.mark.parametrize(
    "host_config",
    [
        {"Binds": ["/a:/x", "data:/x/"]},
        {"Binds": ["/a:/x"], "Mounts": [{"Type": "volume", "Target": "/x"}]},
        {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}},
        {"Mounts": [{"Type": "tmpfs", "Target": "/x"}, {"Type": "tmpfs", "Target": "/x/"}]},
    ],
)
def test_one_destination_twice(host_config: dict[str, Any]) -> None:
    made = Volumes()
    with pytest.raises(InvalidMountError) as refused:
        resolve(host_config, made=made)
    assert str(refused.value) == "Duplicate mount point: /x"
    assert made.requests == []


def mount(**members: Any) -> dict[str, Any]:
    return {"Mounts": [members]}


def test_a_bind_mount(tmp_path: Path) -> None:
    options = {"Propagation": "rshared", "NonRecursive": True}
    (point,) = resolve(
        mount(Type="bind", Source=f"{tmp_path}/", Target="/x", ReadOnly=True, BindOptions=options)
    )
    assert point.to_docker() == {
        "Type": "bind",
        "Source": str(tmp_path),
        "Destination": "/x",
        "Mode": "",
        "RW": False,
        "Propagation": "rshared",
    }
    assert not point.recursive
    assert not point.create_source


def test_a_volume_mount() -> None:
    made = Volumes()
    options = {
        "NoCopy": True,
        "Labels": {"a": "1"},
        "Subpath": "sub/dir",
        "DriverConfig": {"Name": "local", "Options": {"o": "x"}},
    }
    (point,) = resolve(
        mount(Type="volume", Source="data", Target="/x", VolumeOptions=options), made=made
    )
    assert (point.name, point.subpath, point.copy_up, point.mode) == ("data", "sub/dir", False, "z")
    (request,) = made.requests
    assert (request.labels, request.options, request.driver) == ({"a": "1"}, {"o": "x"}, "local")


def test_a_tmpfs_mount() -> None:
    options = {"SizeBytes": 1048576, "Mode": 0o1770, "Options": [["exec"], ["uid", "7"]]}
    (point,) = resolve(mount(Type="tmpfs", Target="/x", TmpfsOptions=options, ReadOnly=True))
    assert point.to_docker() == {
        "Type": "tmpfs",
        "Source": "",
        "Destination": "/x",
        "Mode": "",
        "RW": False,
        "Propagation": "",
    }
    assert point.options == ("mode=1770", "size=1048576", "exec", "uid=7")


def test_host_config_tmpfs_is_not_listed() -> None:
    (point,) = resolve({"Tmpfs": {"/run/": "rw,size=64k,size=1m,exec"}})
    assert (point.destination, point.is_listed) == ("/run", False)
    assert point.options == ("rw", "size=64k", "size=1m", "exec")
    with pytest.raises(InvalidMountError) as refused:
        resolve({"Tmpfs": {"/run": "upperdir=/x"}})
    assert str(refused.value) == 'Invalid tmpfs option ["upperdir" "/x"]'


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"Type": "bind", "Source": "/nowhere", "Target": "/x"},
            "bind source path does not exist: /nowhere",
        ),
        ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "/tmp"}, "field Target must not be empty"),
        (
            {"Type": "bind", "Source": "tmp", "Target": "/x"},
            "invalid mount path: 'tmp' mount path must be absolute",
        ),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "x"},
            "invalid mount path: 'x' mount path must be absolute",
        ),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "/"},
            "invalid specification: destination can't be '/'",
        ),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "/x", "VolumeOptions": {}},
            "field VolumeOptions must not be specified",
        ),
        (
            {
                "Type": "bind",
                "Source": "/tmp",
                "Target": "/x",
                "BindOptions": {"Propagation": "up"},
            },
            "invalid propagation mode: up",
        ),
        (
            {"Type": "volume", "Target": "/x", "BindOptions": {}},
            "field BindOptions must not be specified",
        ),
        (
            {"Type": "volume", "Target": "/x", "ReadOnly": True},
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            {
                "Type": "volume",
                "Source": "vv",
                "Target": "/x",
                "VolumeOptions": {"Subpath": "a/../../b"},
            },
            "subpath must be a relative path within the volume",
        ),
        ({"Type": "tmpfs", "Source": "vv", "Target": "/x"}, "field Source must not be specified"),
        ({"Type": "floppy", "Target": "/x"}, "mount type unknown"),
        ({"Type": "image", "Source": "busybox", "Target": "/x"}, "not supported by this version"),
    ],
)
def test_mounts_that_make_no_sense(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidMountError) as refused:
        resolve(mount(**members))
    assert str(refused.value) == f'invalid mount config for type "{members["Type"]}": {message}'


def test_anonymous_volumes_give_way() -> None:
    made = Volumes()
    points = resolve(
        {"Binds": ["data:/taken"], "Tmpfs": {"/scratch": ""}},
        volumes={"/mine": {}},
        image={"/taken/": {}, "/scratch": {}, "/images//own/": {}, "/mine": {}},
        made=made,
    )
    assert [(point.type, point.destination) for point in points] == [
        ("volume", "/mine"),
        ("tmpfs", "/scratch"),
        ("volume", "/taken"),
        ("volume", "/images/own"),
    ]
    assert [request.name for request in made.requests] == ["data", "", ""]
    assert points[0].to_docker() == {
        "Type": "volume",
        "Name": "anonymous",
        "Source": "/volumes/anonymous/_data",
        "Destination": "/mine",
        "Driver": "local",
        "Mode": "",
        "RW": True,
        "Propagation": "",
    }


@pytest.mark.parametrize(
    "destination",
    [
        "/",
        "/..",
        "/x/..",
        ".",
        "../proc",
        "proc/self",
        "/proc",
        "/proc/self/attr",
        "/x/../proc/self",
        "/sys/fs",
        "/dev",
        "",
    ],
)
def test_volumes_an_image_may_not_declare(destination: str) -> None:
    made = Volumes()
    with pytest.raises(InvalidMountError):
        resolve({"Binds": ["data:/d"]}, image={destination: {}}, made=made)
    assert made.requests == []


@pytest.mark.parametrize(
    ("written", "destination"),
    [("data", "/data"), ("./a//b/", "/a/b"), ("../x", "/x"), ("//data", "/data")],
)
def test_an_image_may_leave_the_root_out(written: str, destination: str) -> None:
    (point,) = resolve(image={written: {}})
    assert point.destination == destination


def test_an_image_may_declare_what_only_looks_special() -> None:
    (point,) = resolve(image={"/process/data": {}})
    assert point.destination == "/process/data"
    assert point.copy_up


@pytest.mark.parametrize("destination", ["", "data", "/", "/a:/b"])
def test_malformed_anonymous_volumes(destination: str) -> None:
    with pytest.raises(InvalidMountError, match=r"^invalid volume specification: "):
        resolve(volumes={destination: {}})


def test_volumes_from() -> None:
    theirs = [
        MountPoint("volume", "/volumes/a/_data", "/a", name="a", driver="local", copy_up=True),
        MountPoint("bind", "/host", "/b", rw=False, propagation="rslave"),
        MountPoint("tmpfs", "", "/t"),
    ]
    config = {"VolumesFrom": ["them:ro"], "Binds": ["/mine:/b"]}
    ours = {point.destination: point for point in resolve(config, others={"them": theirs})}
    assert ours.keys() == {"/a", "/b"}
    assert (ours["/a"].rw, ours["/a"].copy_up, ours["/a"].name) == (False, False, "a")
    assert ours["/b"].source == "/mine"
    (again,) = resolve({"VolumesFrom": ["them"]}, others={"them": theirs[1:2]})
    assert (again.rw, again.propagation) == (False, "rslave")
    for text, message in (
        ("", "cannot be an empty string"),
        ("them:nocopy", "invalid mode: nocopy"),
    ):
        with pytest.raises(InvalidMountError, match=message):
            resolve({"VolumesFrom": [text]}, others={"them": theirs})


def test_sources_of_binds_are_made_for_the_text_form_only(tmp_path: Path) -> None:
    (point,) = resolve({"Binds": [f"{tmp_path}/a/b:/x"]})
    make_sources([point, MountPoint("tmpfs", "", "/t")])
    assert (tmp_path / "a" / "b").is_dir()
    gone = MountPoint("bind", f"{tmp_path}/gone", "/x")
    with pytest.raises(
        InvalidMountError, match=f"bind source path does not exist: {tmp_path}/gone"
    ):
        make_sources([gone])
    (tmp_path / "file").touch()
    (below,) = resolve({"Binds": [f"{tmp_path}/file/dir:/x"]})
    with pytest.raises(InvalidMountError, match="error while creating mount source path"):
        make_sources([below])
