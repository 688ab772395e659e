"""What a command line may ask of a start or an exec beyond the documents."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.runtime.child import Inheritance
    from cais.runtime.process_plan import ProcessPlan


class Habits:
    """Deviations from the usual.

    by_systemd: the control group is made by systemd (``--systemd-cgroup``).
    preserved: descriptors the program gets under their own numbers, besides 0, 1 and 2. Borrowed.
    env: more of its environment.
    has_own_keyring: false leaves the caller's session keyring to the container.
    pivots: false enters the root without pivot_root(2), which a root on an initramfs refuses.
    subgroups: exec only; controller (``""``: all) to a group below the container's, to enter.
    """

    __slots__ = ("by_systemd", "env", "has_own_keyring", "pivots", "preserved", "subgroups")

    def __init__(self) -> None:
        self.preserved: Sequence[int] = ()
        self.env: Sequence[bytes] = ()
        self.by_systemd = False
        self.has_own_keyring = True
        self.pivots = True
        self.subgroups: Mapping[str, str] = {}

    def settle(self, process: ProcessPlan, given: Inheritance) -> None:
        """Write down what concerns every process: its environment, and what it inherits."""
        process.env += self.env
        given.preserved = self.preserved
        given.has_own_keyring = self.has_own_keyring
