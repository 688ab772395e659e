"""From an OCI ``linux.seccomp`` object to a program, through libseccomp.

Compiling Docker's profile takes milliseconds and its result depends on nothing but the object,
this module and the library, so it is kept as a file under a digest of the three.

Spec: seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3); OCI runtime-spec 1.2.
"""

from __future__ import annotations

import _thread
import errno
import os

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux.seccomp import library, loader, profiles, prologue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.spec.runtime import Seccomp, SeccompArg, SeccompRule

COMPILER_VERSION = 2  # part of the digest: raise it when a compiled program would change
ACTIONS = {
    "SCMP_ACT_KILL": library.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": library.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": library.KILL_PROCESS,
    "SCMP_ACT_TRAP": library.TRAP,
    "SCMP_ACT_ERRNO": library.ERRNO,
    "SCMP_ACT_TRACE": library.TRACE,
    "SCMP_ACT_ALLOW": library.ALLOW,
    "SCMP_ACT_LOG": library.LOG,
    profiles.NOTIFY: library.NOTIFY,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # a container starts with one thread
    "SECCOMP_FILTER_FLAG_LOG": loader.LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": loader.SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": loader.WAIT_KILLABLE,
}
OPERATORS = {
    name: value
    for value, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), start=1)
}
_ERRNO_MASK = 0xFFFF
_keeping = _thread.allocate_lock()  # threading.Lock, without an import the runtime does not have


def ensure_compiled(seccomp: Seccomp, directory: str) -> str:
    """Return the path of the compiled program, compiling it if it is not there.

    May be called from several threads of one program.

    Args:
        seccomp: as in ``config.json``.
        directory: made with mode 0700; nobody else may write there, because what lies in it
            decides what containers may do.

    Raises:
        InvalidArgumentError: a malformed object.
        UnsupportedError: no libseccomp, or an action or flag this version does not have.

    """
    path = f"{directory}/{_digest(seccomp)}.bpf"
    # Only here: the engine has it, and the runtime keeps no file.
    from cais.linux.durable import replace_file

    with _keeping:
        if not os.path.exists(path):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            replace_file(path, compile_profile(seccomp), mode=0o600)
    return path


def compile_profile(seccomp: Seccomp) -> bytes:
    """Return the program for ``load``, which returns a listener if a rule notifies.

    An unknown architecture is killed as a whole process. Names no part of the filter knows are
    left to the default action.

    Raises:
        InvalidArgumentError: a malformed object.
        UnsupportedError: no libseccomp, or an action or flag this version does not have.

    """
    seccomp = profiles.check(seccomp)
    default = _action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    flags = _flags(seccomp.get("flags", []), notifies=bool(profiles.notified_calls(seccomp)))
    rules = [
        (rule, action)
        for rule in seccomp.get("syscalls", [])
        if (action := _action(rule["action"], rule.get("errnoRet"))) != default
    ]
    with library.Filter(default) as filter_:
        architectures = _architectures(filter_, seccomp.get("architectures", []))
        for rule, action in rules:
            _add(filter_, rule, action)
        code = filter_.export()
    if default not in (library.ALLOW, library.LOG):
        newest = {name: library.newest_number(token) for name, token in architectures.items()}
        code = prologue.assemble(newest, _answers(architectures, rules)) + code
    if len(code) // loader.INSTRUCTION_BYTES > loader.MAX_INSTRUCTIONS:
        raise InvalidArgumentError("invalid seccomp profile: more than 4096 instructions")
    return loader.pack(code, flags)


def _action(name: str, errno_ret: int | None) -> int:
    if name not in ACTIONS:
        raise UnsupportedError(f"seccomp action {name} is not supported")
    action = ACTIONS[name]
    if action in (library.ERRNO, library.TRACE):
        return action | ((errno.EPERM if errno_ret is None else errno_ret) & _ERRNO_MASK)
    if errno_ret is not None:
        raise InvalidArgumentError(f"invalid seccomp profile: {name} takes no errno")
    return action


def _flags(names: Sequence[str], *, notifies: bool) -> int:
    unknown = [name for name in names if name not in FLAGS]
    if unknown:
        raise UnsupportedError(f"seccomp flag {unknown[0]} is not supported")
    flags = sum({FLAGS[name] for name in names})
    if notifies:
        return flags | loader.NEW_LISTENER
    return flags & ~loader.WAIT_KILLABLE  # it is about notifications; alone the kernel refuses it


def _architectures(filter_: library.Filter, names: Sequence[str]) -> dict[str, int]:
    """Add the architectures to the filter; return those it has, the native one included."""
    tokens = {name: library.architecture_token(name) for name in dict.fromkeys(names)}
    unknown = [name for name, token in tokens.items() if token == 0]
    if unknown:
        raise InvalidArgumentError(f"invalid seccomp profile: unknown architecture {unknown[0]}")
    for token in tokens.values():
        filter_.add_architecture(token)
    native = library.native_architecture()
    if native not in tokens.values():
        tokens |= {
            name: native
            for name in prologue.AUDIT_ARCHITECTURES
            if library.architecture_token(name) == native
        }
    return tokens


def _add(filter_: library.Filter, rule: SeccompRule, action: int) -> None:
    arguments = rule.get("args", [])
    for name in rule["names"]:
        number = library.resolve(name)
        if number is None:
            continue
        indexes = [argument["index"] for argument in arguments]
        if len(set(indexes)) == len(indexes):
            filter_.add_rule(action, number, [_comparison(argument) for argument in arguments])
            continue
        # Two conditions on one argument cannot be "and" in libseccomp: Docker means "or".
        for argument in arguments:
            filter_.add_rule(action, number, [_comparison(argument)])


def _comparison(argument: SeccompArg) -> library.Comparison:
    operator = OPERATORS[argument["op"].removeprefix("SCMP_CMP_")]
    first, second = argument["value"], argument.get("valueTwo", 0)
    return library.Comparison(argument["index"], operator, first, second)


def _answers(
    architectures: Mapping[str, int], rules: Sequence[tuple[SeccompRule, int]]
) -> dict[str, dict[int, int]]:
    """Return what the prologue answers: calls that are named and libseccomp does not know."""
    found: dict[str, dict[int, int]] = {name: {} for name in architectures}
    for rule, action in rules:
        if rule.get("args"):
            continue
        for name in rule["names"]:
            if library.resolve(name) is not None:
                continue
            for architecture in architectures:
                number = prologue.number_of(name, architecture)
                if number is not None:
                    found[architecture].setdefault(number, action)
    return found


def _digest(seccomp: Seccomp) -> str:
    key = [COMPILER_VERSION, library.version(), os.uname().machine, seccomp]
    # Only here: the engine has them, and the runtime compiles without a digest.
    import hashlib
    import json

    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
