"""``cais run`` and ``cais create``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from cais.cli.container_streams import (
    exit_status,
    open_attachment,
    proxied_signals,
    pump,
    require_terminal,
)
from cais.cli.creation import attached_streams, create_body
from cais.cli.failures import InvalidFlagError, NoTerminalError, describe, exit_code_of
from cais.cli.options import command
from cais.cli.run_options import create_options, run_options
from cais.cli.streams import Detached
from cais.errors import CaisError, ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.cli.session import Session
    from cais.client import Client, Hijacked

Options = dict[str, Any]
_USAGE = "IMAGE [COMMAND] [ARG...]"


class RunError(CaisError):
    """The container could not be created or started; ``exit_code`` says why, as Docker does."""

    def __init__(self, cause: CaisError) -> None:
        prefix = "" if isinstance(cause, InvalidFlagError) else "cais: "
        hint = "Run 'cais run --help' for more information"
        super().__init__(f"{prefix}{describe(cause)}\n\n{hint}")
        self.exit_code = exit_code_of(str(cause))


@command("create", _USAGE, minimum=1, interspersed=False)
@create_options
def create(session: Session, /, arguments: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
    """Create a new container."""
    print(_create(session.client, options, arguments))


@command("run", _USAGE, minimum=1, interspersed=False)
@run_options
def run(session: Session, /, arguments: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401
    """Create and run a new container from an image."""
    try:
        _check(options)
        client = session.client
        container = _create(client, options, arguments)
        if options["detach"]:
            client.post(f"/containers/{container}/start").close()
            print(container)
            return 0
        return _run_attached(client, container, options)
    except Detached:
        return 0
    except NoTerminalError:
        raise
    except CaisError as error:
        raise RunError(error) from error


def _check(options: Options) -> None:
    if options["detach"] and options["attach"]:
        raise InvalidArgumentError("Conflicting options: -a and -d")
    if options["tty"] and "stdin" in attached_streams(options):
        require_terminal()


def _create(client: Client, options: Options, arguments: tuple[str, ...]) -> str:
    image, *words = arguments
    body = create_body(options, image, words)
    with _cidfile(options["cidfile"]) as write_id:
        query = {"name": options["name"], "platform": options["platform"]}
        if options["pull"] == "always":
            _pull(client, image, options)
        try:
            answer = client.post("/containers/create", query, body).json()
        except NotFoundError as error:
            if not str(error).lower().startswith("no such image") or options["pull"] == "never":
                raise
            _pull(client, image, options, is_missing=True)
            answer = client.post("/containers/create", query, body).json()
        for warning in answer.get("Warnings") or ():
            print(f"WARNING: {warning}", file=sys.stderr)
        write_id(answer["Id"])
    return str(answer["Id"])


def _pull(client: Client, image: str, options: Options, *, is_missing: bool = False) -> None:
    # Only here: most containers find their image.
    from cais.cli.commands.transfers import pull_image
    from cais.spec.reference import parse_reference

    reference = parse_reference(image).with_default_tag()
    if is_missing:
        print(f"Unable to find image '{reference.familiar()}' locally", file=sys.stderr)
    shown = not options["quiet"]
    pull_image(client, str(reference), options["platform"], shown=shown, stream=2)


@contextlib.contextmanager
def _cidfile(path: str | None) -> Iterator[Callable[[str], object]]:
    """Give a function that writes the id; without a call, no file is left."""
    if path is None:
        yield lambda identifier: identifier
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        raise ConflictError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        try:
            yield file.write
        except BaseException:
            os.unlink(path)
            raise


def _run_attached(client: Client, container: str, options: Options) -> int:
    """Attach, wait, start: in this order no byte and no exit can be missed."""
    streams = attached_streams(options)
    with contextlib.ExitStack() as stack:
        if options["sig_proxy"] and not options["tty"]:
            stack.enter_context(proxied_signals(client, container))
        attachment = open_attachment(client, container, streams, options["detach_keys"])
        stack.enter_context(attachment)
        condition = "removed" if options["rm"] else "next-exit"
        waiting = client.post(f"/containers/{container}/wait", {"condition": condition})
        stack.enter_context(waiting)
        _start(client, container, options)
        _pump(client, container, attachment, streams, options)
        return exit_status(waiting)


def _start(client: Client, container: str, options: Options) -> None:
    try:
        client.post(f"/containers/{container}/start").close()
    except CaisError:
        if options["rm"]:  # the daemon removes what has run; this has not
            with contextlib.suppress(CaisError):
                client.delete(f"/containers/{container}", {"force": True}).close()
        raise


def _pump(
    client: Client, container: str, attachment: Hijacked, streams: set[str], options: Options
) -> None:
    pump(
        client,
        attachment,
        f"/containers/{container}",
        terminal=options["tty"],
        stdin="stdin" in streams,
        detach_keys=options["detach_keys"],
    )
