"""Commands that read their arguments as Docker's do.

Differences from click's own: ``--flag=true`` and ``--flag=false`` for switches, and the words of
a missing argument.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import click

from cais.cli.session import pass_session

if TYPE_CHECKING:
    from collections.abc import Callable

_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}


class DockerCommand(click.Command):
    """A command whose switches also take ``=true`` and ``=false``.

    Args:
        usage: the arguments as Docker's help writes them, ``IMAGE [COMMAND] [ARG...]``.
        minimum: how many arguments there must be.
        maximum: how many there may be; None for any number.
        interspersed: whether options may follow the first argument.

    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        usage: str = "",
        minimum: int = 0,
        maximum: int | None = None,
        interspersed: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **options)
        self.context_settings = {
            "allow_interspersed_args": interspersed,
            "help_option_names": ["--help"],
        }
        self.options_metavar = "[OPTIONS]"
        self._usage, self._minimum, self._maximum = usage, minimum, maximum

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the usage line's parts."""
        return ["[OPTIONS]", self._usage] if self._usage else ["[OPTIONS]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after switches with a value were rewritten."""
        left = super().parse_args(ctx, self._rewrite_switches(args, ctx))
        count = len(ctx.params.get("arguments", ()))
        if count < self._minimum or (self._maximum is not None and count > self._maximum):
            raise click.UsageError(self._count_message(ctx), ctx)
        return left

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Call the function; one that takes no arguments is given none."""
        if self._maximum == 0:
            del ctx.params["arguments"]
        return super().invoke(ctx)

    def _rewrite_switches(self, args: list[str], ctx: click.Context) -> list[str]:
        switches = {name for name, option in self._named_options(ctx) if option.is_flag}
        takers = {name for name, option in self._named_options(ctx) if not option.is_flag}
        rewritten: list[str] = []
        waiting = iter(args)
        for word in waiting:
            name, separator, value = word.partition("=")
            is_last = word == "--" or (not word.startswith("-") and not ctx.allow_interspersed_args)
            if is_last:
                return [*rewritten, word, *waiting]
            if separator and name in switches and value.lower() in _TRUE | _FALSE:
                rewritten += [name] if value.lower() in _TRUE else []
                continue
            rewritten.append(word)
            if word in takers:  # the next word is its value, whatever it looks like
                rewritten.extend(itertools.islice(waiting, 1))
        return rewritten

    def _named_options(self, ctx: click.Context) -> list[tuple[str, click.Option]]:
        return [
            (name, option)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in option.opts
        ]

    def _count_message(self, ctx: click.Context) -> str:
        wanted, word = self._minimum, "at least"
        if self._maximum == self._minimum:
            word = "exactly"
        elif self._maximum is not None and len(ctx.params.get("arguments", ())) > self._maximum:
            wanted, word = self._maximum, "at most"
        if self._maximum == 0:
            return f"'{ctx.command_path}' accepts no arguments\n\n{self.get_usage(ctx)}"
        plural = "" if wanted == 1 else "s"
        return (
            f"'{ctx.command_path}' requires {word} {wanted} argument{plural}\n\n"
            f"{self.get_usage(ctx)}"
        )


def command(
    name: str,
    usage: str = "",
    minimum: int = 0,
    maximum: int | None = None,
    *,
    interspersed: bool = True,
) -> Callable[[Callable[..., object]], DockerCommand]:
    """Decorate a function that takes ``session``, its options by name and ``arguments``."""

    def decorate(function: Callable[..., object]) -> DockerCommand:
        made: DockerCommand = click.command(
            name,
            cls=DockerCommand,
            usage=usage,
            minimum=minimum,
            maximum=maximum,
            interspersed=interspersed,
        )(click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(pass_session(function)))
        return made

    return decorate
