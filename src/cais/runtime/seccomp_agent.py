"""The listener of a filter that notifies, handed to the agent that waits on ``listenerPath``.

Imported by the parent, and only for a profile with SCMP_ACT_NOTIFY. One connection, one message
(a container process state with one descriptor, ``seccompFd``), and the end.

Spec: OCI runtime-spec 1.2, config-linux.md "Seccomp", "The Container Process State".
"""

from __future__ import annotations

import array
import json
import os
from _socket import (  # socket builds enums: 5 ms of start-up
    AF_UNIX,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import process
from cais.linux.seccomp import profiles
from cais.runtime.launch import LaunchError
from cais.spec.runtime import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.oci_state import StateFacts
    from cais.spec.runtime import Seccomp

# What a process that is born inside does under its filter before anybody knows its pid, and so
# before the agent can be told whose listener it has.
_BEFORE_BIRTH = frozenset({"capset", "clone", "close", "exit_group", "prctl", "read"})


class Agent:
    """Where one process's listener goes; owns the listener until it has been sent."""

    __slots__ = ("_early", "_facts", "_init_pid", "_listener_fd", "_metadata", "_path")

    def __init__(self, seccomp: Seccomp | None, facts: StateFacts, init_pid: int) -> None:
        """Take over the profile's address.

        Args:
            seccomp: a profile that notifies; None when only its program is known.
            facts: of the container.
            init_pid: the container's first process, for an exec; 0 for that process itself.

        Raises:
            InvalidArgumentError: the profile has no ``listenerPath``.
            UnsupportedError: an exec whose filter notifies of what it does itself before anybody
                knows its pid.

        """
        self._path = seccomp.get("listenerPath", "") if seccomp else ""
        if seccomp is None or not self._path:
            raise InvalidArgumentError("seccomp listenerPath is not set")
        self._early = sorted(_BEFORE_BIRTH.intersection(profiles.notified_calls(seccomp)))
        if init_pid and self._early:
            raise UnsupportedError(
                f"SCMP_ACT_NOTIFY on {self._early[0]} is not supported for a process that is "
                "executed in a running container"
            )
        self._metadata = seccomp.get("listenerMetadata", "")
        self._facts = facts
        self._init_pid = init_pid
        self._listener_fd = -1

    @property
    def is_needed_early(self) -> bool:
        """Whether a process that is born inside would wait for it before anybody knows its pid."""
        return bool(self._early)

    def take(self, pidfd: int, number: int) -> None:
        """Copy the listener, descriptor ``number`` of the process ``pidfd``."""
        self.close()
        try:
            self._listener_fd = process.copy_descriptor(pidfd, number)
        except OSError as error:
            raise _failure("cannot take the seccomp listener", error) from None

    def send(self, pid: int) -> None:
        """Give the listener of the process ``pid``, if there is one, to the agent. Never blocks.

        Raises:
            LaunchError: the agent does not listen or does not take it.

        """
        if self._listener_fd < 0:
            return
        text = json.dumps(self._document(pid)).encode()
        rights = (SOL_SOCKET, SCM_RIGHTS, array.array("i", [self._listener_fd]))
        line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
        try:
            line.connect(self._path)
            sent = line.sendmsg([text], [rights], MSG_NOSIGNAL)
            if sent < len(text):  # an agent may have closed its end already
                line.sendall(text[sent:], MSG_NOSIGNAL)
        except OSError as error:
            raise _failure(f"cannot send the seccomp listener to {self._path}", error) from None
        finally:
            line.close()
            self.close()

    def close(self) -> None:
        """Let go of a listener that was not sent; idempotent."""
        if self._listener_fd >= 0:
            os.close(self._listener_fd)
            self._listener_fd = -1

    def _document(self, pid: int) -> dict[str, object]:
        status = "running" if self._init_pid else "creating"
        return {
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self._metadata,
            "state": self._facts.document(status, self._init_pid or pid),
        }


def _failure(what: str, error: OSError) -> LaunchError:
    reason = os.strerror(error.errno or 0).lower()
    return LaunchError(f"{what}: {reason}", errno=error.errno or 0, step="seccomp agent")
