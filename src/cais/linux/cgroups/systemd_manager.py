"""What the cgroup driver asks of systemd: start, change and stop one scope unit.

    StartTransientUnit ──▶ job path          SetUnitProperties ──▶ ()
    JobRemoved (signal) ◀── its result       StopUnit ──▶ job path

Root uses systemd's own socket, and the system bus where there is none; a user the same two of
the session. Root of a user namespace, such as a rootless engine's, is the user it is outside.

Spec: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import time

from cais.errors import ConflictError, UnavailableError
from cais.linux import namespaces
from cais.linux.dbus import DbusError, Target, Variant, open_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self, TypeAlias

    from cais.linux.dbus import Connection

    Properties: TypeAlias = list[tuple[str, Variant]]

_INTERFACE = "org.freedesktop.systemd1.Manager"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = Target("org.freedesktop.systemd1", _PATH, _INTERFACE)
_PROPERTIES = Target("org.freedesktop.systemd1", _PATH, "org.freedesktop.DBus.Properties")
_JOB_REMOVED = f"type='signal',interface='{_INTERFACE}',member='JobRemoved'"
_GONE = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject")


def is_running() -> bool:
    """Whether systemd is this host's first process (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


class Manager:
    """A connection to the systemd of root, or of this user; a context manager."""

    __slots__ = ("_connection",)

    def __init__(self) -> None:
        self._connection = _connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.__exit__()

    def group(self) -> str:
        """Return the control group that all its units are below; "" for the topmost."""
        return self._get("ControlGroup").rstrip("/")

    def version(self) -> int:
        """Return the major version; 0 if it has another form than ``252.39-1``."""
        digits = self._get("Version").lstrip("v").replace("~", ".").partition(".")[0].split("-")[0]
        return int(digits) if digits.isdecimal() else 0

    def start(self, unit: str, properties: Properties) -> None:
        """Start a transient unit and wait until it runs.

        One of that name that failed and still lies about is cleared away first.

        Raises:
            ConflictError: a unit of that name exists.
            UnavailableError: systemd did not start it.

        """
        try:
            self._start(unit, properties)
        except DbusError as error:
            if not error.name.endswith(".UnitExists"):
                raise UnavailableError(f"systemd did not start {unit}: {error}") from error
            self.reset_failed(unit)
            try:
                self._start(unit, properties)
            except DbusError as again:
                raise ConflictError(f"systemd did not start {unit}: {again}") from again

    def change(self, unit: str, properties: Properties) -> None:
        """Change properties of a unit, for as long as it lives.

        Raises:
            UnavailableError: systemd refused.

        """
        try:
            self._call(_MANAGER, "SetUnitProperties", "sba(sv)", [unit, True, properties])
        except DbusError as error:
            raise UnavailableError(f"systemd did not change {unit}: {error}") from error

    def stop(self, unit: str) -> None:
        """Stop a unit and wait for it; nothing happens if there is none."""
        try:
            self._finish(self._call(_MANAGER, "StopUnit", "ss", [unit, "replace"])[0])
        except DbusError as error:
            if error.name not in _GONE:
                raise UnavailableError(f"systemd did not stop {unit}: {error}") from error
        self.reset_failed(unit)

    def reset_failed(self, unit: str) -> None:
        """Forget that a unit failed; nothing happens if it did not."""
        try:
            self._call(_MANAGER, "ResetFailedUnit", "s", [unit])
        except DbusError:
            return  # not loaded any more: what was wanted

    def _start(self, unit: str, properties: Properties) -> None:
        arguments = [unit, "replace", properties, []]
        (job,) = self._call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)
        result = self._finish(job)
        if result != "done":
            self.reset_failed(unit)
            raise UnavailableError(f"systemd did not start {unit}: the job ended as {result!r}")

    def _finish(self, job: str) -> str:
        """Wait until ``job`` is over; return its result: ``done``, ``failed``, ``timeout``."""
        deadline = time.monotonic() + self._connection.timeout_s
        while True:
            body = self._connection.next_signal(_INTERFACE, "JobRemoved", deadline)
            if len(body) == 4 and body[1] == job:
                return str(body[3])

    def _get(self, name: str) -> str:
        (found,) = self._call(_PROPERTIES, "Get", "ss", [_INTERFACE, name])
        return str(found.value)

    def _call(
        self, target: Target, member: str, signature: str, values: Sequence[Any]
    ) -> list[Any]:
        return self._connection.call(target, member, signature, values)


def _connect() -> Connection:
    private, bus = _sockets()
    if os.path.exists(private):
        # Here signals come unasked.
        return open_connection(private, is_bus=False)
    if not os.path.exists(bus):
        raise UnavailableError("systemd is not running on this host: the cgroup driver needs it")
    connection = open_connection(bus, is_bus=True)
    try:
        connection.subscribe(_JOB_REMOVED)
        connection.call(_MANAGER, "Subscribe")
    except BaseException:
        connection.__exit__()
        raise
    return connection


def _sockets() -> tuple[str, str]:
    """Return systemd's own socket and the bus's."""
    uid = namespaces.uid_outside()
    if uid == 0:
        return "/run/systemd/private", "/run/dbus/system_bus_socket"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"{runtime}/systemd/private", f"{runtime}/bus"
