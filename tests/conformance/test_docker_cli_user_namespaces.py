"""``--userns-remap`` with the real CLI; what is expected, dockerd 20.10 does."""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cais.testing.peers import installed
from cais.testing.remapped_daemon import COUNT, FIRST, RemappedDaemon
from cais.testing.waiting import wait_until

OUR_MAP = ["0", str(FIRST), str(COUNT)]
HOSTS_MAP = ["0", "0", "4294967295"]
PRIVILEGED = (
    "privileged mode is incompatible with user namespaces.  You must run the container in the host "
    "namespace when running privileged mode"
)


@contextmanager
def started(busybox_tar: bytes) -> Iterator[RemappedDaemon]:
    with short_directory() as directory, RemappedDaemon(directory) as daemon:
        daemon.docker("load", stdin=busybox_tar)
        yield daemon


@contextmanager
def short_directory() -> Iterator[Path]:
    # Not tmp_path: the path of a unix socket has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def remapped(busybox_tar: bytes) -> Iterator[RemappedDaemon]:
    with started(busybox_tar) as daemon:
        yield daemon


@pytest.fixture
def own(busybox_tar: bytes) -> Iterator[RemappedDaemon]:
    """Give a daemon that the test may stop."""
    with started(busybox_tar) as daemon:
        yield daemon


def shell(daemon: RemappedDaemon, script: str, *options: str, stdin: str = "") -> list[str]:
    """Run a script in a container that is removed; return the lines it printed."""
    done = daemon.docker("run", "--rm", "-i", *options, "busybox", "sh", "-c", script, stdin=stdin)
    return done.stdout.splitlines()


def refusal(daemon: RemappedDaemon, *arguments: str) -> str:
    done = daemon.docker(*arguments, check=False)
    assert done.returncode, done.stdout
    return done.stderr


def uid_map(daemon: RemappedDaemon, *options: str) -> list[str]:
    return shell(daemon, "cat /proc/self/uid_map /proc/self/gid_map", *options)[0].split()


def owner(path: str | Path) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_uid, facts.st_gid


def test_info_and_inspect_say_so(remapped: RemappedDaemon) -> None:
    said = remapped.docker("info", "-f", "{{json .SecurityOptions}}").stdout
    assert json.loads(said)[-1] == "name=userns"
    for option, mode in (("", ""), ("host", "host")):
        made = remapped.docker("create", f"--userns={option}", "busybox").stdout.strip()
        said = remapped.docker("inspect", "-f", "{{.HostConfig.UsernsMode}}", made).stdout
        assert said.strip() == mode
        remapped.docker("rm", made)


def test_root_is_root_inside_alone(remapped: RemappedDaemon) -> None:
    assert uid_map(remapped) == OUR_MAP
    assert uid_map(remapped, "--userns=host") == HOSTS_MAP
    assert uid_map(remapped, "--userns=host", "--privileged", "--pid=host") == HOSTS_MAP
    remapped.docker("run", "-d", "--name", "seen", "busybox", "top")
    try:
        pid = remapped.docker("inspect", "-f", "{{.State.Pid}}", "seen").stdout.strip()
        status = remapped.run_inside(["cat", f"/proc/{pid}/status"]).stdout
        assert f"Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n" in status
        assert remapped.docker("top", "seen", "-eo", "uid,pid,args").stdout.split()[3] == str(FIRST)
    finally:
        remapped.docker("rm", "-f", "seen")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (
            "--privileged",
            PRIVILEGED,
        ),
        (
            "--network=host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_what_a_user_namespace_excludes(remapped: RemappedDaemon, option: str, text: str) -> None:
    said = refusal(remapped, "create", option, "busybox")
    assert said.strip() == f"Error response from daemon: {text}"


def test_everything_in_it_belongs_to_root(remapped: RemappedDaemon) -> None:
    places = (
        "/ /etc /etc/hosts /etc/resolv.conf /dev /dev/shm /dev/pts /proc/1 /sys/class/net/eth0 /t"
    )
    assert set(shell(remapped, f"stat -c '%u %g' {places}", "--tmpfs", "/t")) == {"0 0"}
    assert shell(remapped, "stat -c '%u %a' /dev/null /dev/zero") == ["65534 666"] * 2
    # It may do with its network what its capabilities say, and with its own kernel parameters.
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_forward"
    assert shell(remapped, script, "--sysctl", "net.ipv4.ip_forward=1") == ["0", "1"]
    assert shell(remapped, "ip link set lo down && echo down", "--cap-add", "NET_ADMIN") == ["down"]
    ping = (
        "ping -c 1 -W 60 $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') | grep -c ttl="
    )
    assert shell(remapped, ping) == ["1"]
    assert shell(remapped, "echo more >>/etc/hosts && tail -n 1 /etc/hosts") == ["more"]


@pytest.mark.parametrize("user", ["", "33:44"])
def test_streams_are_the_user_s(remapped: RemappedDaemon, user: str) -> None:
    """/dev/stdout can be opened, of the container and of an exec."""
    script = "cat; echo out >/dev/stdout; echo err >/dev/stderr"
    done = remapped.docker(
        *("run", "--rm", "-i", "-u", user, "busybox", "sh", "-c", script), stdin="in\n"
    )
    assert (done.stdout, done.stderr) == ("in\nout\n", "err\n")
    remapped.docker("run", "-d", "--name", "streams", "busybox", "top")
    try:
        done = remapped.docker(
            "exec", "-i", "-u", user, "streams", "sh", "-c", script, stdin="in\n"
        )
        assert (done.stdout, done.stderr) == ("in\nout\n", "err\n")
        maps = remapped.docker("exec", "--privileged", "streams", "cat", "/proc/self/uid_map")
        assert maps.stdout.split() == OUR_MAP
    finally:
        remapped.docker("rm", "-f", "streams")


def test_one_copy_of_the_layers_serves_all(remapped: RemappedDaemon) -> None:
    """What is written has the ids of the container in diff, commit, export and cp."""
    script = "mkdir /d; echo 1 >/d/f; chown 5:6 /d/f; rm /etc/passwd"
    remapped.docker("run", "--name", "writer", "busybox", "sh", "-c", script)
    try:
        assert sorted(remapped.docker("diff", "writer").stdout.splitlines()) == [
            *("A /d", "A /d/f", "C /etc", "D /etc/passwd"),
        ]
        remapped.docker("commit", "writer", "written")
        show = "stat -c '%u %g' /d /d/f"
        for option in ("--userns=host", "--userns="):
            command = ("run", "--rm", option, "written", "sh", "-c", show)
            assert remapped.docker(*command).stdout.splitlines() == ["0 0", "5 6"]
        archive = remapped.directory / "export.tar"
        remapped.docker("export", "-o", str(archive), "writer")
        with tarfile.open(archive) as tar:
            member = tar.getmember("d/f")
            assert (member.uid, member.gid) == (5, 6)
    finally:
        remapped.docker("rm", "writer")
        remapped.docker("rmi", "-f", "written", check=False)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_copies_have_the_container_s_ids(remapped: RemappedDaemon, state: str) -> None:
    remapped.docker("volume", "create", "copied")
    remapped.docker("run", "-d", "--name", "copies", "-v", "copied:/vol", "busybox", "top")
    try:
        if state == "stopped":
            remapped.docker("kill", "copies")
        tar = archive_of({"f": (7, 8), "sub/g": (0, 0)})
        for place in ("/tmp", "/vol"):
            remapped.docker("cp", "-a", "-", f"copies:{place}", stdin=tar)
            with tarfile.open(fileobj=io.BytesIO(copied_out(remapped, f"copies:{place}"))) as seen:
                base = place.strip("/")
                ids = {member.name: (member.uid, member.gid) for member in seen}
                assert (ids[f"{base}/f"], ids[f"{base}/sub/g"]) == ((7, 8), (0, 0))
        data = remapped.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "copied").stdout
        assert owner(f"{data.strip()}/f") == (FIRST + 7, FIRST + 8)
        text = refusal_of_stdin(remapped, archive_of({"far": (COUNT, 0)}), "copies:/tmp")
        assert f"Container ID {COUNT} cannot be mapped to a host ID" in text
    finally:
        remapped.docker("rm", "-f", "copies")
        remapped.docker("volume", "rm", "copied")


def archive_of(files: dict[str, tuple[int, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (uid, gid) in files.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid = uid, gid
            tar.addfile(member)
    return buffer.getvalue()


def copied_out(daemon: RemappedDaemon, source: str) -> bytes:
    path = daemon.directory / "copied.tar"
    daemon.run_client(["sh", "-c", f"exec docker cp {source} - >{path}"])
    return path.read_bytes()


def refusal_of_stdin(daemon: RemappedDaemon, stdin: bytes, target: str) -> str:
    done = daemon.docker("cp", "-a", "-", target, stdin=stdin, check=False)
    assert done.returncode
    return done.stderr


def test_volumes_belong_to_the_container_s_root(remapped: RemappedDaemon) -> None:
    context = "mkdir /data; echo 1 >/data/f; chown 5:6 /data /data/f; chmod 750 /data"
    remapped.docker("run", "--name", "source", "busybox", "sh", "-c", context)
    remapped.docker("commit", "source", "withdata")
    try:
        script = "stat -c '%u:%g %a' /data; stat -c '%u:%g' /data/f; touch /data/own"
        for name, option, first in (("ours", "--userns=", FIRST), ("theirs", "--userns=host", 0)):
            done = remapped.docker(
                *("run", "--rm", option, "-v", f"{name}:/data", "-v", f"{name}-empty:/e"),
                *("withdata", "sh", "-c", script),
            )
            assert done.stdout.splitlines() == ["5:6 750", "5:6"]
            data = remapped.data_root / "volumes" / name / "_data"
            assert owner(data) == owner(data / "f") == (first + 5, first + 6)
            assert owner(data / "own") == (first, first)
            assert owner(remapped.data_root / f"volumes/{name}-empty/_data") == (first, first)
    finally:
        remapped.docker("rm", "source")
        remapped.docker("rmi", "-f", "withdata")


def test_binds_keep_the_host_s_ids(remapped: RemappedDaemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "hosts").write_text("secret")
    (tmp_path / "hosts").chmod(0o600)
    (tmp_path / "ours").touch()
    os.chown(tmp_path / "ours", FIRST + 9, FIRST)
    script = (
        "stat -c %u /b/hosts /b/ours; cat /b/hosts 2>&1; chown 0 /b/hosts 2>/dev/null || echo no"
    )
    assert shell(remapped, script, "-v", f"{tmp_path}:/b") == [
        *("65534", "9", "cat: can't open '/b/hosts': Permission denied", "no"),
    ]
    assert owner(tmp_path / "hosts") == (0, 0)
    remapped.docker("run", "--rm", "-v", f"{tmp_path}/new/dir:/b", "busybox", "touch", "/b/f")
    made = tmp_path / "new/dir"
    assert owner(made.parent) == owner(made) == owner(made / "f") == (FIRST, FIRST)


def test_who_shares_a_namespace_shares_the_users(remapped: RemappedDaemon) -> None:
    remapped.docker("run", "-d", "--name", "donor", "--ipc=shareable", "busybox", "top")
    remapped.docker("run", "-d", "--name", "other", "busybox", "top")
    remapped.docker("run", "-d", "--name", "plain", "--userns=host", "busybox", "top")
    try:
        same = remapped.docker("exec", "donor", "readlink", "/proc/self/ns/user").stdout
        for kind in ("network", "pid", "ipc"):
            script = "readlink /proc/self/ns/user; stat -c %u /sys/class/net/eth0 /dev/shm"
            lines = shell(remapped, script, f"--{kind}=container:donor")
            assert lines == [same.strip(), "0", "0"]
            assert "it has the host's user namespace" in refusal(
                remapped, "run", "--rm", f"--{kind}=container:plain", "busybox", "true"
            )
        options = ("--network=container:donor", "--pid=container:other")
        text = refusal(remapped, "run", "--rm", *options, "busybox", "true")
        assert "different user namespaces" in text
        maps = uid_map(remapped, "--userns=host", "--network=container:donor")
        assert maps == HOSTS_MAP
    finally:
        remapped.docker("rm", "-f", "donor", "other", "plain")


def test_terminal_and_init(remapped: RemappedDaemon) -> None:
    script = "tr '\\0' '\\n' </proc/1/cmdline | head -n 1; id -u; tty; echo out >/dev/stdout"
    command = ("--init", "-t", "-u", "33", "busybox", "sh", "-c", script)
    lines = remapped.docker("run", "--rm", *command).stdout.splitlines()
    assert lines == ["/sbin/docker-init", "33", "/dev/pts/0", "out"]


def test_another_runtime_is_refused(remapped: RemappedDaemon) -> None:
    text = refusal(remapped, "create", "--runtime", "runc", "busybox")
    if "Unknown runtime" not in text and "unknown or invalid runtime" not in text:
        assert "runtime runc is not supported with user namespaces" in text


def test_it_survives_the_daemon(own: RemappedDaemon) -> None:
    own.docker("run", "--rm", "busybox")
    own.restart()  # whose ready namespaces are another daemon's, and go
    before = own.snapshot()
    pins = own.exec_root / "netns"
    own.docker("run", "-d", "--name", "kept", "busybox", "top")
    old = {path.name for path in pins.iterdir()}
    own.restart()
    assert own.docker("exec", "kept", "cat", "/proc/self/uid_map").stdout.split() == OUR_MAP
    assert len({path.name for path in pins.iterdir()} & old) == 2
    own.docker("restart", "-t", "0", "kept")
    assert own.docker("exec", "kept", "cat", "/proc/self/uid_map").stdout.split() == OUR_MAP
    own.docker("rm", "-f", "kept")
    kinds = ("mounts", "cgroups", "bundles", "containers")
    wait_until(
        lambda: not own.left_since(before).keys() & set(kinds), lambda: own.left_since(before)
    )
    wait_until(lambda: are_pairs(os.listdir(pins)), lambda: os.listdir(pins))


def are_pairs(names: list[str]) -> bool:
    """Say whether each network namespace is there with its user namespace, and neither alone."""
    return {f"{name}.user" for name in names if "." not in name} == {
        name for name in names if "." in name
    }


def test_a_container_keeps_what_it_was_created_with(own: RemappedDaemon) -> None:
    show = ("busybox", "sh", "-c", "cat /proc/self/uid_map; touch /made")
    own.docker("create", "--name", "ours", *show)
    own.stop()
    own.remap = None
    own.start()
    said = own.docker("info", "-f", "{{json .SecurityOptions}}").stdout
    assert "name=userns" not in json.loads(said)
    own.docker("create", "--name", "plain", *show)
    assert own.docker("start", "-a", "ours").stdout.split() == OUR_MAP
    own.stop()
    own.remap = "remapped"
    own.start()
    assert own.docker("start", "-a", "plain").stdout.split() == HOSTS_MAP
    for name in ("ours", "plain"):
        assert own.docker("diff", name).stdout.splitlines() == ["A /made"]


def test_a_driver_without_mapped_layers_says_so(busybox_tar: bytes) -> None:
    with short_directory() as directory:
        daemon = RemappedDaemon(directory, "--storage-driver", "fuse-overlayfs")
        installed("fuse-overlayfs")
        with daemon:
            daemon.docker("load", stdin=busybox_tar)
            text = refusal(daemon, "create", "busybox", "true")
            assert "user namespaces need ID-mapped mounts" in text
            assert "fuse-overlayfs cannot show its layers ID-mapped" in text
            assert daemon.docker("ps", "-aq").stdout == ""
            assert uid_map(daemon, "--userns=host") == HOSTS_MAP


def test_the_default_user_is_made() -> None:
    with short_directory() as directory, RemappedDaemon(directory, remap="default") as daemon:
        said = daemon.docker("info", "-f", "{{json .SecurityOptions}}").stdout
        assert json.loads(said)[-1] == "name=userns"
        grants = daemon.run_inside(["sh", "-c", "grep -h ^dockremap: /etc/sub[ug]id"]).stdout
        assert grants.split() == [f"dockremap:{FIRST + COUNT}:{COUNT}"] * 2


def test_what_is_no_value_of_the_flag() -> None:
    """Texts and exit status are dockerd's; the others are in the unit tests."""
    with short_directory() as directory, RemappedDaemon(directory, remap="4242:4242") as daemon:
        daemon.stop()
        for value, text in REFUSED.items():
            done = daemon.attempt(value)
            assert (done.returncode, done.stderr.splitlines()[-1]) == (1, text)


REFUSED = {
    "nosuch": 'Error during uid lookup for "nosuch": getent unable to find entry "nosuch" in '
    "passwd database",
    "daemon": 'Can\'t create ID mappings: no subuid ranges found for user "daemon"',
}
