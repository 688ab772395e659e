"""The value of ``--userns-remap``, as dockerd reads it: from accounts to the maps of containers.

``user``, ``user:group``, ``uid``, ``uid:gid`` or ``default``, which stands for the user and group
dockremap. All must be there, but for dockremap, which is made, as Docker makes it. The ranges are
the user's alone, in /etc/subuid and /etc/subgid; the group is only checked.
"""

from __future__ import annotations

import grp
import logging
import pwd
import shutil
import subprocess

from cais.errors import InternalError, InvalidArgumentError
from cais.linux import subordinate_ids
from cais.spec.identities import IdentityMaps, Lines

log = logging.getLogger(__name__)

_DEFAULT, _DEFAULT_USER = "default", "dockremap"
_FIRST, _COUNT = 100_000, 65_536
_LIMIT_S = 30
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_OFF = "User namespaces: root cannot be remapped with itself; user namespaces are OFF"


def load_identities(option: str) -> IdentityMaps | None:
    """Return the maps that ``option`` stands for; None: no user namespaces.

    Raises:
        InvalidArgumentError: Docker's texts: no such account, or it has no ranges.
        InternalError: dockremap cannot be made.

    Blocks: where dockremap is made, for some programs.

    """
    if not option:
        return None
    user = _find_user(option)
    if user.pw_name == "root":
        log.warning(_OFF)
        return None
    log.info(
        "User namespaces: ID ranges will be mapped to subuid/subgid ranges of: %s", user.pw_name
    )
    try:
        return IdentityMaps(
            _lines(user, subordinate_ids.SUBUID, "subuid"),
            _lines(user, subordinate_ids.SUBGID, "subgid"),
        )
    except (InvalidArgumentError, OSError) as exc:
        raise InvalidArgumentError(f"Can't create ID mappings: {exc}") from exc


def _find_user(option: str) -> pwd.struct_passwd:
    first, colon, second = option.partition(":")
    if ":" in second:
        raise InvalidArgumentError(
            f'Invalid user/group specification in --userns-remap: "{option[:128]}"'
        )
    user = _user_by_id(int(first)) if _is_number(first) else _user_by_name(first)
    if colon:
        _check_group(second)
    elif _is_number(first):
        _check_same_group(int(first))
    elif not _has_group(user.pw_name):
        raise InvalidArgumentError(
            f'Error during gid lookup for "{user.pw_name}": {_missing(user.pw_name, "group")}'
        )
    return user


def _user_by_id(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except (KeyError, OverflowError) as exc:
        raise InvalidArgumentError(
            f"Uid {uid} has no entry in /etc/passwd: {_missing(uid, 'passwd')}"
        ) from exc


def _user_by_name(name: str) -> pwd.struct_passwd:
    wanted = _DEFAULT_USER if name == _DEFAULT else name
    try:
        return pwd.getpwnam(wanted)
    except (KeyError, ValueError) as exc:
        if name != _DEFAULT:
            raise InvalidArgumentError(
                f'Error during uid lookup for "{name[:128]}": {_missing(name, "passwd")}'
            ) from exc
    _make_default_user()
    return pwd.getpwnam(wanted)


def _check_group(group: str) -> None:
    if _is_number(group):
        if not _has_group_id(int(group)):
            raise InvalidArgumentError(  # /etc/passwd: so says Docker
                f"Gid {group} has no entry in /etc/passwd: {_missing(group, 'group')}"
            )
    elif not _has_group(group):
        raise InvalidArgumentError(
            f'Error during groupname lookup for "{group[:128]}": {_missing(group, "group")}'
        )


def _check_same_group(number: int) -> None:
    if not _has_group_id(number):
        raise InvalidArgumentError(
            f"Gid {number} has no entry in /etc/group: {_missing(number, 'group')}"
        )


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except (KeyError, ValueError):
        return False
    return True


def _has_group_id(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except (KeyError, OverflowError):
        return False
    return True


def _missing(what: str | int, database: str) -> str:
    return f'getent unable to find entry "{str(what)[:128]}" in {database} database'


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _lines(user: pwd.struct_passwd, path: str, kind: str) -> Lines:
    """Lay the user's ranges side by side, from id 0 of the container on."""
    lines, inside = [], 0
    for outside, count in subordinate_ids.load_ranges(path, user.pw_name, user.pw_uid):
        lines.append((inside, outside, count))
        inside += count
    if not inside:
        raise InvalidArgumentError(f'no {kind} ranges found for user "{user.pw_name}"')
    return tuple(lines)


def _make_default_user() -> None:
    """Make the user and group dockremap, and give it ids that nobody has."""
    _run(
        *("useradd", "--system", "--user-group", "--no-create-home"),
        *("--home-dir", "/nonexistent", "--shell", "/bin/false", _DEFAULT_USER),
    )
    for path, option in (
        (subordinate_ids.SUBUID, "--add-subuids"),
        (subordinate_ids.SUBGID, "--add-subgids"),
    ):
        first = _first_free(subordinate_ids.all_ranges(path))
        _run("usermod", option, f"{first}-{first + _COUNT - 1}", _DEFAULT_USER)


def _first_free(taken: list[tuple[int, int]]) -> int:
    first = _FIRST
    for start, count in sorted(taken):
        if start < first + _COUNT and first < start + count:
            first = start + count
    return first


def _run(program: str, *arguments: str) -> None:
    try:
        subprocess.run(
            [shutil.which(program, path=_PATH) or program, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None)
        why = said.decode(errors="replace").strip() if said else str(exc)
        raise InternalError(f'Error during "{_DEFAULT_USER}" user creation: {why}') from exc
