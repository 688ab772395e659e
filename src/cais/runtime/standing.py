"""Who this runtime is on its host: root, or rootless.

Rootless is an ordinary user, or root of a user namespace (what an engine such as podman makes of
an ordinary user before it calls its runtime). Control groups may then be out of reach, device
nodes cannot be made, and groups cannot always be set.

Spec: the ``--rootless`` flag of runc.
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError
from cais.linux import namespaces

_MODES = {"true": True, "false": False, "auto": None}
_said: list[bool | None] = [None]
_nested: list[bool] = []


def set_rootless(text: str) -> None:
    """Take over the flag: ``true``, ``false`` or ``auto``.

    Raises:
        InvalidArgumentError: something else.

    """
    if text not in _MODES:
        raise InvalidArgumentError(f'invalid value "{text}" for flag --rootless')
    _said[0] = _MODES[text]


def is_rootless() -> bool:
    """Say whether control groups may be out of reach; what ``--rootless`` said, or what is so."""
    said = _said[0]
    return is_ordinary_user() or is_nested() if said is None else said


def is_ordinary_user() -> bool:
    """Say whether the runtime has no privileges at all outside of namespaces it makes."""
    return os.geteuid() != 0


def is_nested() -> bool:
    """Say whether the runtime is itself in a user namespace."""
    if not _nested:
        _nested.append(not namespaces.is_in_initial_user())
    return _nested[0]
