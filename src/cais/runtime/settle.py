"""The last steps before execve, the same for a container's first process and for an exec.

At this point the process is in all its namespaces and its root. What remains takes privileges
away, so the order is fixed: it becomes the user; as the user it looks up the program, which no
filter shall hinder; the filter comes before CAP_SYS_ADMIN is dropped when it needs that to load,
after everything else when no_new_privs makes that unnecessary.

Spec: OCI runtime-spec 1.2, config.md "Process"; credentials(7), seccomp(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

from cais.linux import credentials, paths, process, rlimits, terminal
from cais.linux.signals import SIG_SETMASK, pthread_sigmask
from cais.linux.syscalls import KernelError
from cais.runtime import devices, executable, standing, users
from cais.runtime.launch import LaunchError
from cais.runtime.users import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from cais.linux.credentials import Capabilities
    from cais.linux.process import Program
    from cais.runtime.channel import Channel
    from cais.runtime.launch import Stdio
    from cais.runtime.process_plan import ProcessPlan

INIT_ARGS = ("/sbin/docker-init", "--")  # what ps shows in Docker's containers too
_SYS_ADMIN = credentials.BITS["CAP_SYS_ADMIN"]
_FREE_FD = 16  # where copies of the standard streams wait: above 0-2 and the channel
_NO_APPARMOR = "apparmor: config provided but apparmor not supported"
_NO_SELINUX = "selinux label is specified in config, but selinux is disabled or not supported"
_APPARMOR = "/sys/module/apparmor/parameters/enabled"


def resolve_identity(plan: ProcessPlan, root_fd: int) -> Identity:
    """Decide user, groups and HOME; reads the container's files only if a name needs it."""
    if plan.user is not None:
        identity = users.resolve(root_fd, plan.user, plan.additional_groups)
    else:
        identity = Identity(plan.uid, plan.gid, list(plan.groups), "")
    if not any(item.startswith(b"HOME=") and len(item) > 5 for item in plan.env):
        home = identity.home or users.home_of(root_fd, identity.uid)
        plan.env = [item for item in plan.env if item != b"HOME="]
        plan.env.append(b"HOME=" + os.fsencode(home))
    return identity


def enter_directory(plan: ProcessPlan, root_fd: int) -> bool:
    """Change to the working directory, and make sure that it is inside the container.

    A magic link, such as a descriptor of the host in /proc/self/fd, is refused (CVE-2024-21626).

    Returns:
        Whether it is entered: root may be denied what the user is not, by a file system that
        comes over the network or is another process's. The user then tries, ``find_program``.

    Raises:
        LaunchError: kind ``workdir``.

    """
    try:
        _change_directory(plan, root_fd)
    except LaunchError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        return False
    return True


def _change_directory(plan: ProcessPlan, root_fd: int) -> None:
    try:
        fd = paths.open_in_root(root_fd, plan.cwd, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(fd)
        os.close(fd)
        if not os.getcwd().startswith("/"):
            raise KernelError(errno.EXDEV, "getcwd", "outside of the container")
    except OSError as error:
        code = error.errno or errno.EIO
        raise LaunchError(
            f'chdir to cwd ("{plan.cwd}") set in config.json failed: {os.strerror(code).lower()}',
            errno=code,
            step="chdir",
            kind="workdir",
        ) from None


def find_program(
    plan: ProcessPlan, own_program: tuple[int, int], *, is_at_home: bool
) -> tuple[bytes, Program]:
    """Look the executable up and make its argument arrays (those of the init, if there is one).

    Args:
        plan: the process to become; this one is its user already.
        own_program: as ``executable.find_executable`` takes it.
        is_at_home: what ``enter_directory`` returned.

    Raises:
        LaunchError: the working directory, or the program, is not there or not for this user.

    """
    if not is_at_home:
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _change_directory(plan, root_fd)
        os.close(root_fd)
    path = executable.find_executable(plan.args[0], plan.env, own_program)
    args = [*INIT_ARGS, *plan.args] if plan.init else plan.args
    return path, process.Program([os.fsencode(arg) for arg in args], plan.env)


def apply_limits(plan: ProcessPlan, *, born_inside: bool) -> list[str]:
    """Set resource limits, I/O priority, personality and tuning; return warnings.

    Args:
        plan: the process to become.
        born_inside: another process, born later, will be it, and the parent schedules that.

    """
    texts = [rlimits.apply(*limit) for limit in plan.rlimits]
    if plan.io_priority:
        process.set_io_priority(*plan.io_priority)
    if plan.personality is not None:
        process.set_personality(plan.personality)
    if plan.tuning is not None:
        plan.tuning.set_memory_policy()
        if not born_inside:
            plan.tuning.set_scheduling()
    return [text for text in texts if text]


def keep_capabilities(plan: ProcessPlan, line: Channel) -> Capabilities:
    """Return the sets the program gets: what cannot be granted is left out, and told."""
    available = credentials.permitted()
    missing = plan.capabilities.beyond(available)
    if missing:
        names = ", ".join(name for name, bit in credentials.BITS.items() if missing & bit)
        line.send({"warning": f"capabilities that cannot be granted: {names}"})
    return plan.capabilities.limited_to(available)


def adjust_oom_score(value: int | None, pid: str = "self") -> str | None:
    """Write a process's oom_score_adj; through the host's /proc, so before the pivot.

    Returns:
        A warning, when lowering it needs CAP_SYS_RESOURCE: the container starts regardless.

    """
    if value is None:
        return None
    is_mine = pid == "self" and standing.is_ordinary_user()
    try:
        if is_mine:  # its files in /proc are root's otherwise; it is on the host still
            process.set_dumpable(dumpable=True)
        fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except PermissionError:
        return f"oom_score_adj {value} was not set: lowering it needs CAP_SYS_RESOURCE"
    finally:
        if is_mine:
            process.set_dumpable(dumpable=False)
    return None


def take_streams(stdio: Stdio, root_fd: int) -> None:
    """Make the descriptors of ``stdio`` 0, 1 and 2.

    The container's null device takes the place of the host's, whose mode and owner could be
    changed through the descriptor.
    """
    streams = (stdio.stdin, stdio.stdout, stdio.stderr)
    copies = [_copy_stream(number, fd, root_fd) for number, fd in enumerate(streams)]
    for number, copy in enumerate(copies):
        os.dup2(copy, number, inheritable=True)
        os.close(copy)


def take_terminal(slave_fd: int, size: tuple[int, int] | None, *, controlling: bool = True) -> None:
    """Make the terminal descriptor 0, 1 and 2, and this session's; closes ``slave_fd``."""
    if size is not None:
        terminal.set_size(slave_fd, *size)
    if controlling:
        terminal.make_controlling(slave_fd)
    for number in range(3):
        os.dup2(slave_fd, number, inheritable=True)
    os.close(slave_fd)


def own_streams(uid: int) -> None:
    """Give 0, 1 and 2 to the user, who could not reopen /dev/stdout otherwise."""
    for number in range(3):
        if os.fstat(number).st_uid == uid or devices.is_null(number):
            continue
        try:
            os.fchown(number, uid, -1)
        except OSError as error:  # a file of the host's in a user namespace, or a read-only one
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                raise


def become_user(plan: ProcessPlan, identity: Identity, kept: Capabilities) -> None:
    """Become the user, with the capabilities ``kept`` and what it takes to load the filter."""
    os.umask(plan.umask)
    credentials.drop_bounding(kept.bounding)
    credentials.become(
        *(identity.uid, identity.gid, identity.groups), in_user_namespace=plan.in_user_namespace
    )
    extra = 0
    if plan.filter is not None and not plan.no_new_privileges:
        extra = _SYS_ADMIN & credentials.permitted()
    credentials.set_capabilities(
        permitted=kept.permitted | extra,
        effective=kept.effective | extra,
        inheritable=kept.inheritable,
    )


def drop_privileges(plan: ProcessPlan, kept: Capabilities, line: Channel) -> None:
    """Keep exactly the capabilities ``kept``; load the filter on the way."""
    if not plan.no_new_privileges:
        _install_filter(plan, line)
    credentials.set_capabilities(
        permitted=kept.permitted, effective=kept.effective, inheritable=kept.inheritable
    )
    credentials.set_ambient(kept.ambient)
    if plan.no_new_privileges:
        process.set_no_new_privileges()
        _install_filter(plan, line)


def reset_signals(ignored: Sequence[int]) -> None:
    """Give every signal its default action and unblock all."""
    process.restore_signals(ignored)
    pthread_sigmask(SIG_SETMASK, ())


def execute(path: bytes, program: Program, init_fd: int) -> NoReturn:
    """Replace this process by the user's program, or by the init in ``init_fd`` that starts it.

    A failure of execve itself (no such interpreter, a format nobody knows) goes to the
    container's stderr and ends the process with 255, as it does with runc.
    """
    try:
        if init_fd >= 0:
            program.execute_fd(init_fd)
        program.execute(path)
    except OSError as error:
        _report_failed_execute(path, error)
    os._exit(255)


def open_exec_label(plan: ProcessPlan) -> int:
    """Open where the label of the next execve is written; -1 when none is asked for.

    Through the host's /proc, so before the root is entered (CVE-2025-52881).

    Raises:
        LaunchError: the label needs a security module this host does not run.

    """
    if plan.apparmor:
        name = "/proc/self/attr/apparmor/exec"
        if not os.path.exists(name):
            name = "/proc/self/attr/exec"
        enabled = os.path.exists("/sys/kernel/security/apparmor") or _reads("Y", _APPARMOR)
    elif plan.selinux:
        name, enabled = "/proc/self/attr/exec", os.path.exists("/sys/fs/selinux/enforce")
    else:
        return -1
    if not enabled:
        raise LaunchError(_NO_APPARMOR if plan.apparmor else _NO_SELINUX)
    return os.open(name, os.O_WRONLY | os.O_CLOEXEC)


def write_exec_label(plan: ProcessPlan, label_fd: int) -> None:
    """Have the next execve change to the label; closes ``label_fd``.

    Raises:
        LaunchError: there is no such profile, or none such may be changed to.

    """
    if label_fd >= 0:
        text = f"exec {plan.apparmor}" if plan.apparmor else plan.selinux
        try:
            os.write(label_fd, text.encode())
        except OSError as error:
            raise _refused_label(plan, error) from None
        os.close(label_fd)


def _install_filter(plan: ProcessPlan, line: Channel) -> None:
    """Load the filter; have the parent take its listener before going on under it."""
    if plan.filter is None:
        return
    is_open = plan.filter.is_taken_by_ordinary_user
    if is_open:
        process.set_dumpable(dumpable=True)
    listener_fd = plan.filter.install()
    if listener_fd >= 0:
        line.say({"listener": listener_fd})
        line.wait_for_word()
        os.close(listener_fd)
    if is_open:
        process.set_dumpable(dumpable=False)


def _copy_stream(number: int, fd: int, root_fd: int) -> int:
    """Duplicate ``fd``, which will be ``number``, out of the way of 0, 1 and 2."""
    source_fd = _open_null(number, root_fd) if devices.is_null(fd) else fd
    try:
        return fcntl.fcntl(source_fd, fcntl.F_DUPFD_CLOEXEC, _FREE_FD)
    finally:
        if source_fd != fd:
            os.close(source_fd)


def _open_null(number: int, root_fd: int) -> int:
    """Open the container's null device; where there is none, standard input is at its end."""
    try:
        return devices.open_null(root_fd, os.O_WRONLY if number else os.O_RDONLY)
    except OSError:
        if number:
            raise
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.close(write_fd)
    return read_fd


def _refused_label(plan: ProcessPlan, error: OSError) -> LaunchError:
    reason = os.strerror(error.errno or errno.EIO).lower()
    if plan.apparmor:
        text = f"unable to apply apparmor profile: apparmor failed to apply profile: {reason}"
    else:
        text = f"unable to set SELinux label {plan.selinux!r}: {reason}"
    return LaunchError(text, errno=error.errno or 0, step="write label")


def _reads(text: str, path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(64).decode().startswith(text)
    except OSError:
        return False


def _report_failed_execute(path: bytes, error: OSError) -> None:
    reason = os.strerror(error.errno or errno.EIO).lower()
    try:
        os.write(2, b"exec " + path + b": " + reason.encode() + b"\n")
    except OSError:
        return  # nobody reads it
