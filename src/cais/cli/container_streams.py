"""Attach to a container's streams, pass signals on, and learn how it ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from cais.cli.failures import NoTerminalError
from cais.cli.streams import STDIN_FD, Pump
from cais.cli.terminal import is_terminal
from cais.client.client import quote
from cais.errors import CaisError, InternalError
from cais.spec.detach_keys import DEFAULT_DETACH_KEYS, parse_detach_keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from cais.client import Client, Hijacked, Response

_PROXIED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)


def open_attachment(
    client: Client, container: str, streams: set[str], detach_keys: str | None
) -> Hijacked:
    """Attach to a container that runs, or is about to be started; the caller closes it."""
    query: dict[str, object] = {"stream": True, "detachKeys": detach_keys}
    query.update((name, True) for name in sorted(streams))
    return client.hijack(f"/containers/{quote(container)}/attach", query)


def pump(
    client: Client,
    attachment: Hijacked,
    path: str,
    *,
    terminal: bool,
    stdin: bool,
    detach_keys: str | None,
) -> None:
    """Move bytes until the output ends. ``path`` is what is resized: a container or an exec.

    Raises:
        Detached: the user let go.

    """

    def resize(height: int, width: int) -> None:
        with contextlib.suppress(CaisError):  # not started yet, or over already
            client.post(f"{path}/resize", {"h": height, "w": width}).close()

    Pump(
        attachment,
        terminal=terminal,
        stdin=stdin,
        detach_keys=parse_detach_keys(detach_keys or "") or DEFAULT_DETACH_KEYS,
        resize=resize,
    ).run()


def require_terminal() -> None:
    """Refuse a terminal for the container where we have none to give, as Docker does."""
    if not is_terminal(STDIN_FD):
        raise NoTerminalError


@contextlib.contextmanager
def proxied_signals(client: Client, container: str) -> Iterator[None]:
    """Pass our signals on to the container inside the block."""

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        # In a thread: the interrupted code may be in the middle of a request of its own.
        threading.Thread(target=_kill, args=(client, container, number), daemon=True).start()

    before = {number: signal.signal(number, pass_on) for number in _PROXIED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(client: Client, container: str, number: int) -> None:
    with contextlib.suppress(CaisError):
        client.post(f"/containers/{quote(container)}/kill", {"signal": number}).close()


def exit_status(waiting: Response) -> int:
    """Return the exit code that a ``wait`` answers with. Raises InternalError for its failure."""
    answer = waiting.json()
    if message := (answer.get("Error") or {}).get("Message"):
        raise InternalError(message)
    return int(answer["StatusCode"])
