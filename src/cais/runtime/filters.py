"""System-call filters: taken ready from the engine's cache, or compiled here, once per process.

Spec: seccomp(2); docs/architecture.md 3.2 (``cais.json`` "seccomp") and 4.
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError
from cais.linux import seccomp
from cais.linux.seccomp import loader
from cais.runtime import standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cais.spec.runtime import Config, Seccomp

_programs: dict[str, bytes] = {}  # by the file's path or the document's text; both never change


class Filter:
    """A compiled filter, and the profile it was compiled from where that is known.

    ``is_taken_by_ordinary_user``: the parent that takes the listener may do so only from a process
    that is dumpable.
    """

    __slots__ = ("_program", "is_taken_by_ordinary_user", "profile")

    def __init__(self, program: bytes, profile: Seccomp | None = None) -> None:
        self._program = program
        self.profile = profile
        self.is_taken_by_ordinary_user = self.has_listener and standing.is_ordinary_user()

    @property
    def has_listener(self) -> bool:
        """Whether somebody must be told of system calls."""
        return loader.has_listener(self._program)

    def install(self) -> int:
        """Put the calling process, and all it starts, under the filter for good.

        Returns:
            The listener (owned) if the filter has one, otherwise -1.

        Privileges: CAP_SYS_ADMIN or no_new_privs.

        """
        return seccomp.load(self._program)


def load(config: Config, extras: Mapping[str, Any]) -> Filter | None:
    """Return the filter of a container: for its first process and for every exec.

    Raises:
        InvalidArgumentError: the engine's file cannot be read, or a malformed profile.
        UnsupportedError: no libseccomp, or something it cannot do.

    """
    path = extras.get("seccomp")
    if path is not None:
        if not isinstance(path, str):
            raise InvalidArgumentError("seccomp in cais.json is not a path")
        try:
            return Filter(_read(path))
        except OSError as error:
            raise InvalidArgumentError(f"{path}: {error.strerror}") from error
    document = config.get("linux", {}).get("seccomp")
    if document is None:
        return None
    text = repr(document)
    if text not in _programs:
        # Only here: a container that comes with a compiled program never pays for this import.
        from cais.linux.seccomp import compiler

        _programs[text] = compiler.compile_profile(document)
    return Filter(_programs[text], document)


def _read(path: str) -> bytes:
    if path not in _programs:
        try:
            with open(path, "rb") as file:
                _programs[path] = file.read()
        except OSError as error:
            raise InvalidArgumentError(f"seccomp program {path}: {error.strerror}") from error
    return _programs[path]
