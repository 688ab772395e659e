"""Base images of signed packages: what is in them, and what a lock file makes of them."""

import json
import os
import stat
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from cais.cli.commands import bootstrap as command
from cais.errors import ConflictError, InvalidArgumentError, UnavailableError
from cais.images.bootstrap import busybox, debian
from cais.images.bootstrap.debian import DISTRIBUTIONS, Source, build_image, find_source
from cais.images.bootstrap.lock import Lock, Package, load_lock, save_lock
from cais.images.bootstrap.rootfs import newest_time, reproducible
from cais.testing.raw_tar import Member, tar

DAY_S = 86_400
NEWEST = 1_700_000_000
BASH = Package("bash", "5.2-2", "amd64", "aa")
LOCK = Lock("debian:bookworm", "amd64", {"InRelease": "sha256:1"}, (BASH,))


def installation(began: int, host: str, owner_of_cache: int = 0) -> bytes:
    """Return what an installation at a time on a host leaves: packages' files, and its own."""
    return tar(
        [
            Member("./", kind=b"5", mode=0o755, mtime=began + 9),
            Member("./etc/", kind=b"5", mode=0o755, mtime=began + 1),
            Member("./etc/hostname", host.encode(), mtime=began),
            Member("./etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mtime=began + 2),
            Member("./etc/passwd-", b"old", mtime=began),
            Member(
                "./etc/shadow", b"root:*:%d:0:99999:7:::\n" % (began // DAY_S), mode=0o640, gid=42
            ),
            Member("./dev/null", kind=b"3", device=(1, 3), mtime=began),
            Member("./usr/bin/su", b"program", mode=0o4755, mtime=NEWEST),
            Member("./usr/bin/link", kind=b"1", link="./usr/bin/su", mtime=NEWEST),
            Member("./usr/bin/sh", kind=b"2", link="su", mtime=began),
            Member("./usr/bin/ping", b"p", mtime=5, pax={"SCHILY.xattr.user.x": "1"}),
            Member("./var/log/", kind=b"5", mode=0o755, mtime=began),
            Member("./var/log/dpkg.log", host.encode(), mtime=began),
            Member("./var/log/apt/", kind=b"5", mode=0o755, mtime=began),
            Member("./var/cache/apt/archives/partial/", kind=b"5", mode=0o700, uid=owner_of_cache),
            Member("./var/cache/ldconfig/aux-cache", host.encode(), mtime=began),
        ]
    )


def layer_of(archive: bytes, began: int) -> bytes:
    rootfs = BytesIO(archive)
    return b"".join(reproducible(rootfs, newest_time(rootfs, began)))


def test_neither_host_nor_moment_is_in_a_layer() -> None:
    first, second = 1_800_000_000, 1_800_000_000 + 400 * DAY_S
    layer = layer_of(installation(first, "one"), first)
    assert layer == layer_of(installation(second, "another", owner_of_cache=42), second)
    with tarfile.open(fileobj=BytesIO(layer)) as opened:
        found = {member.name: member for member in opened}
        shadow = opened.extractfile("etc/shadow")
        assert shadow is not None
        assert shadow.read() == b"root:*:%d:0:99999:7:::\n" % (NEWEST // DAY_S)
    assert sorted(found) == [
        *(".", "etc", "etc/passwd", "etc/shadow", "usr/bin/link", "usr/bin/ping", "usr/bin/sh"),
        *("usr/bin/su", "var/cache/apt/archives/partial", "var/log", "var/log/apt"),
    ]
    assert found["usr/bin/su"].mode == 0o4755
    assert found["usr/bin/link"].islnk()
    assert (found["etc/shadow"].mode, found["etc/shadow"].gid) == (0o640, 42)
    assert found["usr/bin/ping"].pax_headers["SCHILY.xattr.user.x"] == "1"
    assert found["usr/bin/ping"].mtime == 5
    assert {found[name].mtime for name in (".", "etc", "etc/passwd", "usr/bin/sh")} == {NEWEST}


def test_another_package_gives_another_layer() -> None:
    began = 1_800_000_000
    archive = installation(began, "one")
    assert layer_of(archive, began) != layer_of(archive.replace(b"program", b"PROGRAM"), began)


def test_names_of_images() -> None:
    assert find_source("debian").image == "debian:stable"
    assert find_source("debian:trixie").suite == "trixie"
    assert find_source("ubuntu:noble").distribution is DISTRIBUTIONS["ubuntu"]
    for name in ("plan9", "debian:", "debian:--help", "debian:a b", "debian:../x", "ubuntu", "x:y"):
        with pytest.raises(InvalidArgumentError, match="cannot bootstrap"):
            find_source(name)
    for mirror in ("--help", "ftp://x", "http://x y", "javascript:x"):
        with pytest.raises(InvalidArgumentError, match="is no address of a mirror"):
            find_source("debian", mirror)


def test_without_a_keyring_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian.shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    source = Source(DISTRIBUTIONS["ubuntu"], "noble", keyring="/nowhere/keys.gpg")
    with pytest.raises(UnavailableError, match=r"no /nowhere/keys.gpg .* install ubuntu-keyring"):
        build_image(source)
    monkeypatch.setattr(debian.shutil, "which", lambda _: None)
    with pytest.raises(UnavailableError, match="mmdebstrap is not installed"):
        build_image(find_source("debian"))


def test_a_lock_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "lock")
    assert load_lock(path) is None
    save_lock(LOCK, path)
    first = Path(path).read_bytes()
    loaded = load_lock(path)
    assert loaded == LOCK
    save_lock(loaded, path)
    assert Path(path).read_bytes() == first
    assert os.listdir(tmp_path) == ["lock"]


def test_what_differs_from_a_lock_is_named() -> None:
    LOCK.expect(Lock(LOCK.image, LOCK.architecture, {"InRelease": "sha256:2"}, LOCK.packages))
    for packages, told in (
        ((Package("bash", "5.3", "amd64", "bb"),), "bash is 5.3, locked is 5.2-2"),
        ((Package("bash", "5.2-2", "amd64", "bb"),), "bash 5.2-2 has sha256 bb, locked is aa"),
        ((BASH, Package("zsh", "1", "amd64", "cc")), "zsh 1 is new"),
        ((), "bash 5.2-2 is gone"),
    ):
        with pytest.raises(ConflictError, match=told):
            LOCK.expect(Lock(LOCK.image, LOCK.architecture, {}, packages))
    with pytest.raises(ConflictError, match="of architecture amd64, not arm64"):
        LOCK.expect(Lock(LOCK.image, "arm64", {}, LOCK.packages))
    with pytest.raises(ConflictError, match="of image debian:bookworm, not debian:trixie"):
        LOCK.expect(Lock("debian:trixie", "amd64", {}, LOCK.packages))
    many = tuple(Package(f"p{n:03}", "1", "all", "x") for n in range(50))
    with pytest.raises(ConflictError, match="p018 1 is new; and 31 more"):
        LOCK.expect(Lock(LOCK.image, LOCK.architecture, {}, many))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"image": 1}'),
        '{"image": "x", "architecture": "x", "releases": {}, "packages": [{}]}',
        '{"image": "x", "architecture": "x", "releases": {"a": 1}, "packages": []}',
        json.dumps(
            {
                "image": "x",
                "architecture": "x",
                "releases": {},
                "packages": [{"name": "n", "version": 1, "architecture": "a", "sha256": "s"}],
            }
        ),
    ],
)
def test_what_is_no_lock_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(InvalidArgumentError, match=r"lock file .*/lock: "):
        load_lock(os.fspath(tmp_path / "lock"))


def test_what_apt_says_becomes_a_lock(tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("ab12  /x/lists/debian_dists_bookworm_InRelease\n")
    (tmp_path / "installed").write_text("bash=5.2-2\ntzdata=1\n")
    (tmp_path / "packages").write_text(
        "Package: bash\nVersion: 5.3\nArchitecture: amd64\nSHA256: new\n\n"
        "Package: bash\nVersion: 5.2-2\nArchitecture: amd64\nDescription: a\n Version: 9\n"
        "SHA256: aa\n\nPackage: tzdata\nVersion: 1\nArchitecture: all\nSHA256: bb\n"
    )
    made = debian._facts("debian:bookworm", tmp_path)
    assert made.releases == {"debian_dists_bookworm_InRelease": "sha256:ab12"}
    assert (made.architecture, made.packages) == (
        "amd64",
        (BASH, Package("tzdata", "1", "all", "bb")),
    )
    (tmp_path / "installed").write_text("bash=5.2-2\nlocal=1\n")
    with pytest.raises(UnavailableError, match="no signed list names local=1"):
        debian._facts("debian:bookworm", tmp_path)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory whose packages are what ``apt-get download`` finds."""
    archive, programs = tmp_path / "archive", tmp_path / "programs"
    archive.mkdir()
    programs.mkdir()
    script = programs / "apt-get"
    script.write_text(
        "#!/bin/sh\nversion=${2#busybox-static}\n"
        f"cp {archive}/busybox-static_${{version#=}}*.deb . "
        "|| { echo E: no such version >&2; exit 100; }\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return archive


def package(archive: Path, version: str, text: str = "echo sh") -> None:
    """Make a busybox-static whose one program lists one applet."""
    tree = archive.parent / f"tree-{version}-{text[:6]}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: busybox-static\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x>\n"
        "Description: x\n"
    )
    (tree / "bin").mkdir()
    program = tree / "bin/busybox"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    os.utime(program, (NEWEST, NEWEST))
    target = archive / f"busybox-static_{version}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", tree, target]
    subprocess.run(command, check=True, capture_output=True)


def test_busybox_with_a_lock_is_the_package_it_names(apt: Path, tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "lock")
    package(apt, "1.0")
    with command._build("busybox", path, "") as made:
        first = made.read()
    [written] = json.loads(Path(path).read_text())["packages"]
    assert (written["name"], written["version"]) == ("busybox-static", "1.0")
    package(apt, "2.0")
    with command._build("busybox", path, "") as made:
        assert made.read() == first
    with tarfile.open(fileobj=BytesIO(first)) as outer:
        [layer] = [name for name in outer.getnames() if name.endswith(".tar")]
        file = outer.extractfile(layer)
        assert file is not None
        with tarfile.open(fileobj=BytesIO(file.read())) as inner:
            assert stat.S_IMODE(inner.getmember("bin/busybox").mode) == 0o755
            assert inner.getmember("bin/busybox").mtime == NEWEST


def test_busybox_of_the_same_version_but_other_bytes_is_refused(apt: Path, tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "lock")
    package(apt, "1.0")
    command._build("busybox", path, "").close()
    package(apt, "1.0", "echo ash; echo sh")
    with pytest.raises(ConflictError, match=r"busybox-static 1.0 has sha256 .*, locked is "):
        command._build("busybox", path, "")
    (apt / "busybox-static_1.0_all.deb").unlink()
    with pytest.raises(UnavailableError, match=r"busybox-static cannot be had: apt-get: .*no such"):
        busybox.build_locked_busybox_image(load_lock(path))
