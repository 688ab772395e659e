"""Find the program to execute, as a shell would, inside the container; as the program's user.

The texts are those of Go's ``exec.LookPath`` as runc prints them: the docker command line turns
"executable file not found" and "no such file or directory" into exit code 127, "permission
denied" and "is a directory" into 126.
"""

from __future__ import annotations

import errno
import os
import stat

from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def find_executable(name: str, env: Sequence[bytes], own_program: tuple[int, int]) -> bytes:
    """Return the path of ``name``, looked up in the PATH of ``env`` when it has no slash.

    Args:
        name: the first argument of the user's program.
        env: ``KEY=value`` items of the container.
        own_program: (device, inode) of the program this process runs; never executed again,
            whatever link in the image leads there (CVE-2019-5736).

    Raises:
        LaunchError: kind ``not-found`` or ``not-permitted``.

    """
    if "/" in name:
        code, step = _check(name, own_program)
        if code:
            raise _error(name, code, f"{step} {name}: " if step else "")
        return os.fsencode(name)
    for directory in _search_path(env).split(":"):
        path = os.path.join(directory or ".", name)
        if _check(path, own_program)[0] == 0:
            if not path.startswith("/"):
                raise LaunchError(
                    f'exec: "{name}": cannot run executable found relative to current directory',
                    step="look up executable",
                    kind="not-found",
                )
            return os.fsencode(path)
    raise LaunchError(
        f'exec: "{name}": executable file not found in $PATH',
        errno=errno.ENOENT,
        step="look up executable",
        kind="not-found",
    )


def _check(path: str, own_program: tuple[int, int]) -> tuple[int, str]:
    """Return 0 for what can be executed, else the errno that says why not, and whose it is."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno or errno.EIO, "stat"
    except ValueError:  # a NUL in the name
        return errno.EINVAL, ""
    if stat.S_ISDIR(status.st_mode):
        return errno.EISDIR, ""
    if (status.st_dev, status.st_ino) == own_program:
        return errno.EACCES, ""
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES, ""
    return 0, ""


def _search_path(env: Sequence[bytes]) -> str:
    value = ""
    for item in env:  # the last one counts, as in the program's own getenv after deduplication
        if item.startswith(b"PATH="):
            value = os.fsdecode(item[5:])
    return value


def _error(name: str, code: int, where: str) -> LaunchError:
    missing = code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
    return LaunchError(
        f'exec: "{name}": {where}{os.strerror(code).lower()}',
        errno=code,
        step="look up executable",
        kind="not-found" if missing else "not-permitted",
    )
