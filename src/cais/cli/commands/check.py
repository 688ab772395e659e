"""``cais system check``: reads the data root itself, so it needs root but no daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cais.cli.options import command
from cais.errors import CaisError

if TYPE_CHECKING:
    from cais.cli.session import Session


class CheckFailedError(CaisError):
    """Nothing can be said of the data root."""

    exit_code = 125


@command("check", "", maximum=0)
@click.option("--repair", is_flag=True, help="Mend what can be mended; no daemon may run")
@click.option("--quick", is_flag=True, help="Do not read blobs and layers")
def check(session: Session, /, *, repair: bool, quick: bool) -> int:
    """Check that everything is there, whole, and somebody's.

    Exit status: 0, all is well or was repaired; 1, it is not; 125, it cannot be checked.
    """
    from cais.engine.audit.audit import audit
    from cais.engine.audit.data_root import DataRoot

    if os.geteuid() != 0:
        raise CheckFailedError("permission denied: only root can read a data root")
    try:
        root = DataRoot(Path(session.roots.data))
        outcome = audit(root, repair=repair, quick=quick, tell=print)
    except CaisError as exc:
        raise CheckFailedError(str(exc)) from exc
    if outcome.found:
        mended = f", {outcome.repaired} repaired" if repair else ""
        print(f"{root.path}: {len(outcome.found)} problems{mended}")
    else:
        print(f"{root.path}: no problems")
    return 0 if outcome.is_sound else 1
