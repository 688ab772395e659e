"""All checks of one data root, in the order in which one's repair is another's ground."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cais.database.database import loss_of
from cais.engine.audit.blobs import check_blobs, check_unused_blobs
from cais.engine.audit.containers import (
    check_containers,
    check_unused_directories,
    check_unused_snapshots,
)
from cais.engine.audit.databases import check_databases
from cais.engine.audit.images import check_images
from cais.engine.audit.layers import check_layer_contents, check_layers
from cais.engine.audit.registries import check_registry
from cais.errors import CaisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cais.engine.audit.data_root import DataRoot
    from cais.engine.audit.findings import Finding


@dataclass(slots=True)
class Outcome:
    """What an audit came to."""

    found: list[Finding] = field(default_factory=list)
    repaired: int = 0
    left_out: list[str] = field(default_factory=list)
    """What was not looked for, and why."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong, or not any more."""
        return len(self.found) == self.repaired


def audit(
    root: DataRoot,
    *,
    repair: bool = False,
    quick: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Check a data root and, if asked to, mend what can be mended.

    Args:
        root: of whichever daemon; none may be there for a repair.
        repair: remove what is nobody's, put damaged blobs aside, rebuild databases and layers.
        quick: do not read blobs and layers, only look whether they are there.
        tell: told each finding and what became of it, a line at a time.

    Raises:
        ConflictError: a daemon is using the data root that is to be repaired.

    Blocks: as long as reading every blob, and unpacking it, takes.

    """
    with root.exclusive() if repair else contextlib.nullcontext():
        run = _Run(root, tell)
        run.check_registries(quick=quick)
        if not root.has_engine:
            return run.outcome
        run.take(check_databases(root))
        if any(map(loss_of, root.databases)):
            run.leave_out("everything else: not all databases can be read")
            return run.outcome
        if not quick:
            run.take(check_blobs(root))
        run.take(check_images(root))
        run.take(check_layers(root))
        run.take(check_containers(root))
        run.check_what_is_nobodys(quick=quick)
        return run.outcome


class _Run:
    def __init__(self, root: DataRoot, tell: Callable[[str], None]) -> None:
        self.outcome = Outcome()
        self._root = root
        self._tell = tell

    def take(self, findings: Iterable[Finding]) -> None:
        """Tell of each finding, and repair it."""
        for finding in findings:
            self.outcome.found.append(finding)
            self._tell(str(finding))
            if self._root.may_change and finding.repair is not None:
                self._repair(finding.repair)

    def leave_out(self, what: str) -> None:
        """Tell of what is not looked for."""
        self.outcome.left_out.append(what)
        self._tell(f"not checked: {what}")

    def check_registries(self, *, quick: bool) -> None:
        """Check each registry, and what is nobody's in those that are at rest."""
        for place in self._root.registries:
            with self._root.registry_at_rest(place) as is_at_rest:
                if not is_at_rest:
                    self.leave_out(f"what belongs to nobody in {place.name}: it is being served")
                self.take(check_registry(self._root, place, quick=quick, is_at_rest=is_at_rest))

    def check_what_is_nobodys(self, *, quick: bool) -> None:
        """Look for what only somebody at work could need."""
        if self._root.is_served:
            self.leave_out("what belongs to nobody, and the files of layers: a daemon is at work")
            return
        if self._root.has_containers_running:
            self.leave_out("what belongs to no container: some are running")
        elif self._root.may_lack_containers:
            self.leave_out(
                "what belongs to no container: state.db was rebuilt, and no daemon started since"
            )
        else:
            self.take(check_unused_snapshots(self._root))
            self.take(check_unused_directories(self._root))
        self.take(check_unused_blobs(self._root))
        if not quick:
            self.take(check_layer_contents(self._root))

    def _repair(self, repair: Callable[[], str]) -> None:
        try:
            self._tell(f"  {repair()}")
        except (CaisError, OSError) as exc:
            self._tell(f"  not repaired: {exc}")
        else:
            self.outcome.repaired += 1
