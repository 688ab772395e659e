"""``cais manifest inspect``: what a registry has under a name. No daemon is asked."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from cais.cli.docker_config import DockerConfig, server_of
from cais.cli.options import command
from cais.errors import NotFoundError, UnavailableError, UnsupportedError
from cais.images.remote_manifests import RemoteManifest, RemoteManifests, fetch_manifests
from cais.registry.access import Registries
from cais.registry.cancel import Cancel
from cais.registry.credentials import Credentials
from cais.registry.errors import RegistryUnreachableError, UnknownToRegistryError
from cais.registry.options import RegistryOptions
from cais.registry.proxies import Proxies
from cais.registry.settings import load_settings
from cais.spec.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from cais.cli.session import Session
    from cais.spec.reference import Reference

_LIST_INDENT = 3
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""Go writes these so in JSON that it makes; they can only be in strings."""


@command("inspect", "[MANIFEST_LIST] MANIFEST", minimum=1, maximum=2)
@click.option("--insecure", is_flag=True, help="Allow communication with an insecure registry")
@click.option("-v", "--verbose", is_flag=True, help="Output additional info including platform")
def inspect(
    session: Session, /, arguments: tuple[str, ...], *, insecure: bool, verbose: bool
) -> None:
    """Display an image manifest, or manifest list."""
    del session
    if len(arguments) > 1:
        raise UnsupportedError(
            f"manifest list {arguments[0]}: cais keeps no lists of its own, only registries do"
        )
    found = _fetch(parse_reference(arguments[0]).with_default_tag(), insecure=insecure)
    print(_verbose(found) if verbose else _plain(found))


def _fetch(name: Reference, *, insecure: bool) -> RemoteManifests:
    options = RegistryOptions()
    settings = load_settings(
        options.file,
        insecure=(name.domain,) if insecure else (),
        certificates=options.certificates,
    )
    registries = Registries(settings, Proxies.from_environment(os.environ))
    try:
        with contextlib.closing(registries):
            return registries.ask(
                name,
                _credentials(name.domain),
                Cancel(),
                lambda source: fetch_manifests(source, name),
            )
    except UnknownToRegistryError as exc:
        raise NotFoundError(f"no such manifest: {name.familiar()}") from exc
    except RegistryUnreachableError as exc:
        raise UnavailableError(
            f"failed to configure transport: error pinging v2 registry: {exc}"
        ) from exc


def _credentials(domain: str) -> Credentials:
    auth = DockerConfig(os.environ).get(server_of(domain))
    names = ("username", "password", "identitytoken", "registrytoken")
    return Credentials(*(auth.get(name, "") for name in names))


def _plain(found: RemoteManifests) -> str:
    """Return a manifest as it is, indented anew; of a list what docker makes of its parts."""
    if not found.is_list:
        return json.dumps(json.loads(found.manifests[0].content), indent="\t", ensure_ascii=False)
    entries = [
        {
            "mediaType": one.media_type,
            "size": len(one.content),
            "digest": one.digest,
            "platform": one.platform,
        }
        for one in found.manifests
    ]
    is_oci = bool(entries) and entries[0]["mediaType"] == OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX if is_oci else DOCKER_INDEX,
        "manifests": entries,
    }
    return _escaped(json.dumps(document, indent=_LIST_INDENT, ensure_ascii=False))


def _verbose(found: RemoteManifests) -> str:
    shown = [_described(one) for one in found.manifests]
    document = shown if found.is_list else shown[0]
    return _escaped(json.dumps(document, indent="\t", ensure_ascii=False))


def _described(manifest: RemoteManifest) -> dict[str, Any]:
    is_docker = manifest.media_type == DOCKER_MANIFEST
    return {
        "Ref": manifest.name,
        "Descriptor": {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.content),
            "platform": manifest.platform,
        },
        "Raw": base64.b64encode(manifest.content).decode(),
        "SchemaV2Manifest" if is_docker else "OCIManifest": json.loads(manifest.content),
    }


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
