"""``cais registry serve``: a registry of one's own, beside an engine or alone."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cais.cli.options import command
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.cli.session import Session
    from cais.registry.server.serving import RegistryOptions

DEFAULT_ADDRESS = "127.0.0.1:5000"


@command("serve", "", maximum=0)
@click.option("--address", default=DEFAULT_ADDRESS, help="Where to listen, HOST:PORT.")
@click.option("--htpasswd", help="File of users, with bcrypt hashes (htpasswd -B).")
@click.option("--no-delete", is_flag=True, help="Refuse to delete.")
@click.option("--no-images", is_flag=True, help="Do not offer the images of the engine.")
@click.option("--read-only", is_flag=True, help="Refuse to push and to delete.")
@click.option("--tls-cert", help="The server's certificate, PEM.")
@click.option("--tls-key", help="The certificate's key, PEM.")
def serve(session: Session, /, **flags: Any) -> None:  # noqa: ANN401 - click's values
    """Serve a registry: docker, podman and skopeo push to it and pull from it.

    What is pushed is kept in registry/ of the data root (cais --data-root DIR registry serve).
    The images of an engine with that data root can be pulled, too; no bytes are stored twice.
    """
    options = _options(session, **flags)
    try:
        asyncio.run(_serve(options))
    except OSError as exc:
        raise InvalidArgumentError(f"cannot serve a registry at {flags['address']}: {exc}") from exc


def _options(
    session: Session,
    *,
    address: str,
    htpasswd: str | None,
    no_delete: bool,
    no_images: bool,
    read_only: bool,
    tls_cert: str | None,
    tls_key: str | None,
) -> RegistryOptions:
    from cais.registry.server.serving import RegistryOptions

    host, port = parse_address(address)
    if bool(tls_cert) != bool(tls_key):
        raise InvalidArgumentError("--tls-cert and --tls-key belong together")
    data_root = Path(session.roots.data)
    has_engine = (data_root / "images.db").exists()
    del no_images
    return RegistryOptions(
        root=data_root / "registry",
        host=host,
        port=port,
        may_write=not read_only,
        may_delete=not (read_only or no_delete),
        htpasswd=_path(htpasswd),
        certificate=_path(tls_cert),
        key=_path(tls_key),
        neighbour=data_root / "content" if has_engine else None,
    )


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; no host means this machine only."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        raise InvalidArgumentError(f"invalid address {text!r}: HOST:PORT is expected")
    return host.strip("[]") or "127.0.0.1", int(port)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


async def _serve(options: RegistryOptions) -> None:
    from cais.registry.server.serving import RegistryServer

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with RegistryServer(options) as server:
        if options.htpasswd and server.origin.scheme == "http" and not server.origin.is_loopback:
            print("WARNING: without TLS, passwords cross the network readable", file=sys.stderr)
        print(f"Serving a registry at {server.origin} from {options.root}", flush=True)
        await stopping.wait()
