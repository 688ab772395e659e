"""Checkpoint and restore: what CRIU must be told of a container, and what it says of a failure.

CRIU walks the container's processes and namespaces by itself. What is not inside, it must be
told: mounts that come from the host, namespaces that were joined, the pipes of standard input and
output. The image directory gets one file of ours, ``descriptors.json``, as runc writes it.

Spec: criu(8); the flags are those of runc's ``checkpoint`` and ``restore``.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import cgroups
from cais.runtime import criu as criu_program
from cais.runtime import groups
from cais.runtime.bundles import load_config, load_extras
from cais.runtime.restored_root import RestoredRoot, root_of
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments
    from cais.runtime.state import Record
    from cais.spec.runtime import Config

_DESCRIPTORS = "descriptors.json"
_MODES = ("soft", "full", "strict", "ignore")
_SWITCHES = ("tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup")
_EMPTY_NAMESPACES = {"network": "net"}
_JOINED = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}


def dump(criu: str, record: Record, given: Arguments) -> None:
    """Write the processes of a container to files; they are gone then, unless told otherwise.

    Args:
        criu: the program, a path or a name to be searched for.
        record: a running or paused container.
        given: the flags of ``checkpoint``.

    Raises:
        UnsupportedError: CRIU is not installed, or could not restore it.
        InvalidArgumentError: a wrong flag.
        InternalError: CRIU failed, with its reason.

    """
    config = record.config()
    check(config, record.directory)
    images = _image_directory(given)
    verb = "pre-dump" if given.has("pre-dump") else "dump"
    words = [
        *(verb, "--tree", str(record.pid), "--root", root_of(config, record.bundle)),
        *("--evasive-devices", "--link-remap", "--force-irmap"),
        *_dump_options(given, images),
        *(
            f"--external=mnt[{place}]:{place}"
            for place, _ in _outside_mounts(config, record.group().path)
        ),
        *(f"--external={kind}[{inode}]:{key}" for kind, inode, key in _joined(config)),
    ]
    frozen = _freezer(record)
    if frozen:
        words += ["--freeze-cgroup", frozen]
    with open(f"{images}/{_DESCRIPTORS}", "w") as file:
        file.write(json_text.encode(_streams(record.pid)))
    passed = [given.number("status-fd")] if given.has("status-fd") else []
    criu_program.run(criu, [*words, *_options(given, images, verb)], passed)


def check(config: Config, bundle: str) -> None:
    """Refuse what could not be restored; ``bundle`` has the container's ``cais.json``, if any.

    Raises:
        UnsupportedError: the text says what.

    """
    if load_extras(bundle).get("init"):
        # The reaper is a fork of the runtime, whose program and libraries are the host's files.
        raise UnsupportedError("a container with --init cannot be restored")
    if config["process"].get("terminal"):
        raise UnsupportedError("a container with a terminal cannot be restored")
    if config.get("linux", {}).get("intelRdt") is not None:
        raise UnsupportedError("a container with intelRdt cannot be restored")


def restore(criu: str, names: tuple[str, str, str], given: Arguments) -> int:
    """Make the processes again, as children of this one; return the pid of the first.

    Args:
        criu: the program, a path or a name to be searched for.
        names: id, state directory and bundle of the container.
        given: the flags of ``restore``.

    Raises:
        UnsupportedError: CRIU is not installed.
        InvalidArgumentError: a wrong flag.
        InternalError: CRIU failed, with its reason.

    """
    container_id, directory, bundle = names
    images = _image_directory(given, must_exist=True)
    config = load_config(bundle)
    pid_file = f"{directory}/pid"
    group = groups.name_group(container_id, config)
    inherited, words = _inherited(images, config)
    words = ["restore", *_restore_options(given, images), "--pidfile", pid_file, *words]
    group.create(config.get("linux", {}).get("resources", {}))
    groups.remember(container_id, group)
    try:
        with RestoredRoot(directory, bundle, config) as root:
            words += ["--root", root.path, *_cgroup_roots(group.path)]
            for place, source in _outside_mounts(config, group.path):
                path = root.copies.get(place) or os.path.join(bundle, source)
                words.append(f"--external=mnt[{place}]:{path}")
            criu_program.run(criu, words, inherited)
        group.entered()
        with open(pid_file) as file:
            return int(file.read())
    finally:
        for fd in inherited:
            if fd > 2:
                os.close(fd)


def _options(given: Arguments, images: str, verb: str) -> list[str]:
    """Return what both directions are told."""
    work = os.path.abspath(given.text("work-path", images))
    os.makedirs(work, 0o700, exist_ok=True)
    words = ["--images-dir", images, "--work-dir", work, "--log-file", f"{verb}.log", "-v4"]
    words += [f"--{name}" for name in _SWITCHES if given.has(name)]
    mode = given.text("manage-cgroups-mode", "soft")
    if mode not in _MODES:
        raise InvalidArgumentError("Invalid manage-cgroups-mode value")
    words.append(f"--manage-cgroups={mode}")
    for name in given.values("empty-ns"):
        if name not in _EMPTY_NAMESPACES:
            raise InvalidArgumentError(f"namespace {name} is not supported")
        words += ["--empty-ns", _EMPTY_NAMESPACES[name]]
    if given.has("lazy-pages"):
        words.append("--lazy-pages")
    return words


def _dump_options(given: Arguments, images: str) -> list[str]:
    words: list[str] = []
    if given.has("leave-running"):
        words.append("--leave-running")
    if given.has("pre-dump") or given.has("parent-path"):
        words.append("--track-mem")
    parent = given.text("parent-path")
    if parent:
        if os.path.isabs(parent):
            raise InvalidArgumentError("--parent-path must be relative")
        if not os.path.isdir(f"{images}/{parent}"):
            raise InvalidArgumentError(f"--parent-path {parent}: no such directory")
        words += ["--prev-images-dir", parent]
    server = given.text("page-server")
    if server:
        address, colon, port = server.rpartition(":")
        if not (colon and address and port.isdigit()):
            raise InvalidArgumentError("Use --page-server ADDRESS:PORT to specify page server")
        words += ["--page-server", "--address", address, "--port", port]
    if given.has("status-fd"):
        words += ["--status-fd", str(given.number("status-fd"))]
    return words


def _restore_options(given: Arguments, images: str) -> list[str]:
    words = ["--restore-sibling", "--restore-detached", *_options(given, images, "restore")]
    for flag in ("lsm-profile", "lsm-mount-context"):
        if given.has(flag):
            words += [f"--{flag}", given.text(flag)]
    return words


def _image_directory(given: Arguments, *, must_exist: bool = False) -> str:
    images = os.path.abspath(given.text("image-path", "checkpoint"))
    if not must_exist:
        os.makedirs(images, 0o700, exist_ok=True)
    elif not os.path.isdir(images):
        raise InvalidArgumentError(f"image path {images}: no such directory")
    return images


def _outside_mounts(config: Config, group: str) -> list[tuple[str, str]]:
    """Return destination and source of every mount whose files are the host's."""
    private = any(
        entry["type"] == "cgroup" for entry in config.get("linux", {}).get("namespaces", ())
    )
    found = []
    for entry in config.get("mounts", ()):
        options = entry.get("options", ())
        if "bind" in options or "rbind" in options:
            found.append((entry["destination"], entry.get("source", "")))
        elif entry.get("type") == "cgroup" and not private:
            found += _cgroup_mounts(entry["destination"], group)
    masked = config.get("linux", {}).get("maskedPaths", ())
    return found + [(path, "/dev/null") for path in masked if os.path.isfile(path)]


def _cgroup_mounts(destination: str, group: str) -> list[tuple[str, str]]:
    """Return the same of the hierarchies, of cgroup v1 each a mount; they show the host's."""
    hierarchy = cgroups.detect()
    if hierarchy.version == 2:
        return [(destination, f"{hierarchy.unified}{group}")]
    points = sorted(set(hierarchy.mounts.values()))
    return [(f"{destination}/{os.path.basename(point)}", f"{point}{group}") for point in points]


def _joined(config: Config) -> list[tuple[str, int, str]]:
    """Return kind, inode and CRIU's key of every namespace that is not the container's own."""
    found = []
    for entry in config.get("linux", {}).get("namespaces", ()):
        if entry.get("path") and entry["type"] in _JOINED:
            kind, key = _JOINED[entry["type"]]
            found.append((kind, os.stat(entry["path"]).st_ino, key))
    return found


def _inherited(images: str, config: Config) -> tuple[list[int], list[str]]:
    """Return descriptors for CRIU and the words that say what they are."""
    fds: list[int] = []
    words: list[str] = []
    with open(f"{images}/{_DESCRIPTORS}") as file:
        streams = json_text.decode(file.read())
    for number, name in enumerate(streams[:3]):
        if isinstance(name, str) and name.startswith("pipe:"):
            fds.append(number)
            words.append(f"--inherit-fd=fd[{number}]:{name}")
    for entry in config.get("linux", {}).get("namespaces", ()):
        if entry.get("path") and entry["type"] in _JOINED:
            fds.append(os.open(entry["path"], os.O_RDONLY | os.O_CLOEXEC))
            words.append(f"--inherit-fd=fd[{fds[-1]}]:{_JOINED[entry['type']][1]}")
    return fds, words


def _streams(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]


def _freezer(record: Record) -> str:
    """Return the directory CRIU freezes the container by; empty where it has none."""
    hierarchy = cgroups.detect()
    if hierarchy.version == 2:
        return f"{hierarchy.unified}{record.group().path}"
    mount = hierarchy.mounts.get("freezer")
    return f"{mount}{record.group().path}" if mount else ""


def _cgroup_roots(path: str) -> list[str]:
    hierarchy = cgroups.detect()
    if hierarchy.version == 2:
        return ["--cgroup-root", path]
    names = sorted(hierarchy.mounts)
    return [word for name in names for word in ("--cgroup-root", f"{name}:{path}")]
