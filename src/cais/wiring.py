"""``caisd``: the one place that puts the engine, the API and the command line together."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from cais.api.daemon_flags import InvalidFlagError, parse_flags, usage
from cais.errors import CaisError
from cais.spec.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.api.daemon_flags import Values
    from cais.api.options import DaemonOptions
    from cais.engine.engine import Engine
    from cais.spec.identities import IdentityMaps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return the exit status as dockerd has it: 0, or 1 for any failure.

    As a program (``arguments`` is None) it first starts itself again isolated: a directory of
    the caller's or PYTHONPATH must not decide what a root process imports.
    """
    if arguments is None and not sys.flags.isolated:
        command = [sys.executable, "-I", "-B", "-m", "cais.wiring", *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - the same program, by its full path
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
        if flags.get("help"):
            return _say(usage())
        if flags.get("version"):
            return _say(f"caisd version {VERSION}")
        return _run(flags)
    except InvalidFlagError as exc:
        print(f"{exc}\nSee 'caisd --help'.", file=sys.stderr)  # noqa: T201 - the command's output
        return 1


def _run(flags: Values) -> int:
    from cais.api.daemon_log import set_up_logging
    from cais.api.options import load_options
    from cais.engine.remapped_root import load_identities

    options = load_options(flags)
    if flags.get("validate"):
        return _say("configuration OK")
    if os.geteuid() != 0:
        return _fail("caisd needs to be started with root privileges")
    os.umask(0o022)
    set_up_logging(options.log_level)
    try:
        identities = load_identities(options.userns_remap)
    except CaisError as exc:
        return _fail(str(exc))
    try:
        asyncio.run(_serve(flags, options, identities))
    except (CaisError, OSError) as exc:
        return _fail(f"failed to start daemon: {exc}")
    return 0


async def _serve(flags: Values, options: DaemonOptions, identities: IdentityMaps | None) -> None:
    from cais.api.daemon import Daemon
    from cais.api.options import load_options

    async with Daemon(options) as daemon:
        await daemon.start(partial(_open_engine, identities=identities))
        await daemon.run(lambda: load_options(flags))


async def _open_engine(options: DaemonOptions, *, identities: IdentityMaps | None) -> Engine:
    from cais.engine.config import EngineConfig
    from cais.engine.engine import Engine

    return await Engine.open(
        EngineConfig(
            data_root=options.data_root,
            exec_root=options.exec_root,
            cgroup_driver=options.cgroup_driver,
            cgroup_parent=options.cgroup_parent,
            storage_driver=options.storage_driver,
            bridge_name=options.bridge_name,
            bridge_address=options.bridge_address,
            log_max_size_bytes=options.log_max_size_bytes,
            log_max_files=options.log_max_files,
            labels=options.labels,
            registries=options.registries,
            runtimes=options.runtimes,
            default_runtime=options.default_runtime,
            experimental=options.experimental,
            identities=identities,
            debug=options.debug,
        )
    )


def _say(text: str) -> int:
    print(text)  # noqa: T201 - the command's output
    return 0


def _fail(text: str) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - the command's output
    return 1


if __name__ == "__main__":
    sys.exit(main())
