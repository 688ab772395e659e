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
    from cais.registry.server.shelf import Lender
    from cais.registry.server.upstream import Upstream

DEFAULT_ADDRESS = "127.0.0.1:5000"
_DESCRIPTORS_PER_CONNECTION = 8
"""Its socket, a file that is sent or written, TLS in front; and room for the rest."""


@command("serve", "", maximum=0)
@click.option("--address", default=DEFAULT_ADDRESS, help="Where to listen, HOST:PORT.")
@click.option("--htpasswd", help="File of users, with bcrypt hashes (htpasswd -B).")
@click.option("--no-delete", is_flag=True, help="Refuse to delete.")
@click.option("--no-images", is_flag=True, help="Do not offer the images of the engine.")
@click.option("--proxy", help="Be a pull-through cache of this registry: https://HOST[:PORT].")
@click.option("--proxy-password-file", help="File with the password for the proxied registry.")
@click.option("--proxy-username", help="Who we are to the proxied registry.")
@click.option("--read-only", is_flag=True, help="Refuse to push and to delete.")
@click.option("--tls-cert", help="The server's certificate, PEM.")
@click.option("--tls-key", help="The certificate's key, PEM.")
def serve(session: Session, /, **flags: Any) -> None:  # noqa: ANN401 - click's values
    """Serve a registry: docker, podman and skopeo push to it and pull from it.

    What is pushed is kept in registry/ of the data root (cais --data-root DIR registry serve).
    The images of an engine with that data root can be pulled, too; no bytes are stored twice.

    With --proxy it is a cache instead: what the other registry has is fetched when it is asked
    for, and kept in registry-cache-HOST/ of the data root. Deleting there makes room.
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
    **proxy: str | None,
) -> RegistryOptions:
    from cais.http.descriptors import raise_descriptor_limit
    from cais.registry.server.serving import RegistryOptions

    host, port = parse_address(address)
    if bool(tls_cert) != bool(tls_key):
        raise InvalidArgumentError("--tls-cert and --tls-key belong together")
    data_root = Path(session.roots.data)
    has_engine = (data_root / "images.db").exists()
    upstream = _upstream(**proxy)
    lends = has_engine and upstream is None and not no_images
    name = f"registry-cache-{upstream.domain}" if upstream else "registry"
    return RegistryOptions(
        root=data_root / name,
        host=host,
        port=port,
        max_connections=raise_descriptor_limit() // _DESCRIPTORS_PER_CONNECTION,
        may_write=not read_only,
        may_delete=not (read_only or no_delete),
        htpasswd=_path(htpasswd),
        certificate=_path(tls_cert),
        key=_path(tls_key),
        neighbour=data_root / "content" if has_engine else None,
        lender=_lender(data_root) if lends else None,
        upstream=upstream,
    )


def _upstream(
    *, proxy: str | None, proxy_username: str | None, proxy_password_file: str | None
) -> Upstream | None:
    if proxy is None:
        if proxy_username or proxy_password_file:
            raise InvalidArgumentError("--proxy is missing, which says whose user that is")
        return None
    from cais.registry.credentials import Credentials
    from cais.registry.server.upstream import Upstream

    if bool(proxy_username) != bool(proxy_password_file):
        raise InvalidArgumentError("--proxy-username and --proxy-password-file belong together")
    password = ""
    if proxy_password_file:
        try:
            password = Path(proxy_password_file).read_text().rstrip("\n")
        except OSError as exc:
            raise InvalidArgumentError(f"{proxy_password_file}: {exc.strerror}") from exc
    return Upstream(proxy, Credentials(proxy_username or "", password))


def _lender(data_root: Path) -> Lender:
    from cais.images.lending import LentImages

    return LentImages(data_root)


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
