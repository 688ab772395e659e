"""What a command of ``cais-runtime`` is: its flags, its operands, its help and what it does."""

from __future__ import annotations

from cais.runtime.arguments import SWITCH, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.log import Log

HELP: Flag = ("help,h", SWITCH, "show help")


class Context:
    """What the global flags say."""

    __slots__ = ("by_systemd", "criu", "log", "root")

    def __init__(self, root: str, log: Log) -> None:
        self.root = root
        self.log = log
        self.by_systemd = False
        self.criu = "criu"


class Verb:
    """One command. ``run`` returns the exit status; ``least`` and ``most`` count its operands."""

    __slots__ = ("flags", "least", "most", "name", "operands", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        run: Callable[[Arguments, Context], int],
        *,
        flags: Sequence[Flag] = (),
        operands: str = "<container-id>",
        least: int = 1,
        most: int | None = 1,
    ) -> None:
        self.name = name
        self.summary = summary
        self.run = run
        self.flags = flags
        self.operands = operands
        self.least = least
        self.most = most

    def check_operands(self, given: Arguments) -> None:
        """Raise UsageError when there are too few operands, or too many."""
        count = len(given.rest)
        if self.least == self.most and count != self.least:
            problem = f"exactly {self.least}"
        elif count < self.least:
            problem = f"a minimum of {self.least}"
        elif self.most is not None and count > self.most:
            problem = f"a maximum of {self.most}"
        else:
            return
        raise UsageError(f'cais-runtime: "{self.name}" requires {problem} argument(s)')

    def help(self) -> str:
        """Return the text of ``--help``."""
        options = " [command options]" if self.flags else ""
        text = (
            f"NAME:\n   cais-runtime {self.name} - {self.summary}\n\n"
            f"USAGE:\n   cais-runtime {self.name}{options} {self.operands}".rstrip()
            + "\n"
        )
        return f"{text}\nOPTIONS:\n{flag_lines(self.flags)}" if self.flags else text


def flag_lines(flags: Sequence[Flag]) -> str:
    """Return a line for each flag: spellings, whether it has a value, meaning."""
    left = [_spellings(flag) for flag in flags]
    width = max(map(len, left))
    return "".join(
        f"   {spellings:{width}}  {flag[2]}\n" for spellings, flag in zip(left, flags, strict=True)
    )


def _spellings(flag: Flag) -> str:
    value = "" if flag[1] == SWITCH else " value"
    names = flag[0].split(",")
    return ", ".join(f"{'-' if len(name) == 1 else '--'}{name}{value}" for name in names)
