"""Classes of service: shares of cache and memory bandwidth, by the kernel's resctrl.

A document with ``linux.intelRdt`` puts its container into a class, which is a directory:

    <resctrl>/<closID>/schemata                what the class may use
                       tasks                   who is in it
                       mon_groups/<id>/tasks   whose use is counted apart from the others'

The file system's top is the class of everybody else, ``closID`` "/". A class without a name is
the container's own and goes with it. One that is named may have others in it: if it is there it
must be as the document says, and it stays.

Imported only when a document asks for it.

Spec: OCI runtime-spec 1.3, config-linux.md "IntelRdt"; kernel Documentation/filesystems/
resctrl.rst.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cais.linux.cgroups import Cgroup
    from cais.spec.runtime import Resources

_EVERYBODY = "/"
_NO_CLASSES = frozenset({"", ".", "..", "info", "mon_groups", "mon_data"})
_DECIMAL = ("MB", "SMBA")  # the other resources have bit masks, in hexadecimal


class ServiceClass:
    """The class of one container; nothing is made or checked on the host before ``make``."""

    __slots__ = ("_directory", "_is_own", "_lines", "_monitor", "_root")

    def __init__(self, container_id: str, document: Mapping[str, Any], root: str) -> None:
        """Read a document's ``intelRdt``; ``root`` is where resctrl is mounted.

        Raises:
            InvalidArgumentError: no name of a class, or no schema.

        """
        name = document.get("closID") or container_id
        is_name = not ({"/", "\0", "\n"} & set(name)) and name not in _NO_CLASSES
        if name != _EVERYBODY and not is_name:
            raise InvalidArgumentError(f"linux.intelRdt.closID: {name!r} cannot be a class")
        self._root = root
        self._directory = root if name == _EVERYBODY else f"{root}/{name}"
        self._is_own = not document.get("closID")
        self._lines = schema_lines(document)
        self._monitor = ""
        if document.get("enableMonitoring"):
            self._monitor = f"{self._directory}/mon_groups/{container_id}"

    def make(self) -> None:
        """Make what is missing of the class; what is there must be as the document says.

        Raises:
            InvalidArgumentError: it is not, or it is missing and nothing says what it shall be.
            LaunchError: the kernel refuses it; what was made is gone again.

        """
        if not os.path.isdir(self._directory):
            if not self._is_own and not self._lines:
                raise InvalidArgumentError(f"{self._directory}: there is no such class of service")
            self._create()
        elif self._is_own:
            self._write(self._lines)
        else:
            self._check_equal()
        if self._monitor and not os.path.isdir(self._monitor):
            self._make_directory(self._monitor)

    def change(self, lines: Sequence[str]) -> None:
        """Change what the class may use. LaunchError: the kernel refuses it."""
        self._write(lines)

    def open_tasks(self) -> list[int]:
        """Open the files by which a process enters, as those of ``Cgroup.join_fds``."""
        directories = [self._directory, *([self._monitor] if self._monitor else [])]
        fds: list[int] = []
        try:
            for directory in directories:
                fds += [os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)]
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def remove(self) -> None:
        """Take away what is the container's own; idempotent. Who is in it goes to everybody."""
        own = [self._monitor] if self._monitor else []
        if self._is_own:
            own.append(self._directory)
        for directory in own:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue

    def _create(self) -> None:
        self._make_directory(self._directory)
        try:
            self._write(self._lines)
        except BaseException:
            os.rmdir(self._directory)
            raise

    def _make_directory(self, path: str) -> None:
        try:
            os.mkdir(path, 0o755)
        except OSError as error:  # ENOSPC: the processor has no more classes, or counters
            raise self._failed("mkdir", path, error) from error

    def _write(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        path = f"{self._directory}/schemata"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(fd, "".join(f"{line}\n" for line in lines).encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failed("write", path, error) from error

    def _check_equal(self) -> None:
        if not self._lines:
            return
        with open(f"{self._directory}/schemata", encoding="ascii") as file:
            text = file.read()
        found, wanted = _parse(text), _parse("\n".join(self._lines))
        for kind, shares in wanted.items():
            for domain, share in shares.items():
                if found.get(kind, {}).get(domain) != share:
                    raise InvalidArgumentError(
                        f"{self._directory}: its schemata {text.split()} are not {self._lines}"
                    )

    def _failed(self, step: str, path: str, error: OSError) -> LaunchError:
        try:
            with open(f"{self._root}/info/last_cmd_status", encoding="ascii") as file:
                said = file.read().strip()
        except OSError:
            said = ""
        why = f" ({said})" if said not in ("", "ok") else ""
        text = f"intelRdt: {step} {path}: {error.strerror}{why}"
        return LaunchError(text, errno=error.errno or 0, step="resctrl")


class ClassedGroup:
    """A control group and a class of service: made, entered and removed together.

    All else is the group's.
    """

    __slots__ = ("_group", "service_class")

    def __init__(self, group: Cgroup, service_class: ServiceClass) -> None:
        self._group = group
        self.service_class = service_class

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what a Cgroup has
        return getattr(self._group, name)

    def create(self, resources: Resources) -> None:
        """As ``Cgroup.create``, and ``ServiceClass.make``."""
        self._group.create(resources)
        try:
            self.service_class.make()
        except BaseException:
            self._group.remove()
            raise

    def join_fds(self) -> Sequence[int]:
        """As ``Cgroup.join_fds``."""
        return [*self.service_class.open_tasks(), *self._group.join_fds()]

    def join_fds_below(self, subgroups: Mapping[str, str]) -> Sequence[int]:
        """As ``Cgroup.join_fds_below``."""
        return [*self.service_class.open_tasks(), *self._group.join_fds_below(subgroups)]

    def clone_fd(self) -> None:
        """Return None: a clone enters no class."""

    def remove(self, timeout_s: float = 5) -> None:
        """As ``Cgroup.remove``."""
        self.service_class.remove()
        self._group.remove(timeout_s)

    def remove_if_empty(self) -> bool:
        """As ``Cgroup.remove_if_empty``; the class goes with the group."""
        is_removed = self._group.remove_if_empty()
        if is_removed:
            self.service_class.remove()
        return is_removed


def with_class(container_id: str, document: Mapping[str, Any], group: Cgroup) -> Cgroup:
    """Return ``group`` with the class of service that a document's ``intelRdt`` asks for.

    Raises:
        UnsupportedError: resctrl is not mounted here.
        InvalidArgumentError: as ``ServiceClass``.

    """
    service_class = ServiceClass(container_id, document, find_root())
    return ClassedGroup(group, service_class)  # type: ignore[return-value] # it has all of it


def class_of(group: Cgroup) -> ServiceClass | None:
    """Return the class that belongs to a group, None if none does."""
    found: ServiceClass | None = getattr(group, "service_class", None)
    return found


def schema_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines to write to ``schemata``, in the order of the specification.

    Raises:
        InvalidArgumentError: a schema of bandwidth that is none; more than one line in one.

    """
    cache, bandwidth = document.get("l3CacheSchema", ""), document.get("memBwSchema", "")
    if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        raise InvalidArgumentError("linux.intelRdt.memBwSchema: not one line that begins with MB:")
    lines = [line for line in cache.splitlines() if not (bandwidth and line.startswith("MB:"))]
    lines += [bandwidth] if bandwidth else []
    for line in document.get("schemata", ()):
        if "\n" in line:
            raise InvalidArgumentError("linux.intelRdt.schemata: more than one line in one")
        lines.append(line)
    return lines


def find_root() -> str:
    """Return where resctrl is mounted. UnsupportedError: nowhere."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            head, _, tail = line.partition(" - ")
            if tail.startswith("resctrl "):
                return head.split()[4]
    raise UnsupportedError(
        "intelRdt is specified in config, but Intel RDT is not supported or enabled"
    )


def _parse(text: str) -> dict[str, dict[str, int | str]]:
    """Return the share of each domain of each resource, whatever it is written like."""
    found: dict[str, dict[str, int | str]] = {}
    for line in text.splitlines():
        kind, _, domains = line.strip().partition(":")
        base = 10 if kind in _DECIMAL else 16
        for entry in domains.split(";"):
            domain, _, share = entry.strip().partition("=")
            found.setdefault(kind, {})[domain] = _number(share, base)
    return found


def _number(text: str, base: int) -> int | str:
    try:
        return int(text, base)
    except ValueError:
        return text
