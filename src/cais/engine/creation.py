"""Creating a container: check everything, decide everything, then make it durable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.engine.bundle import check_log_config
from cais.engine.endpoints import check_endpoints
from cais.engine.merge import command_of, merge_config
from cais.engine.names import generate_name, new_id, parse_name
from cais.engine.oci import adapt_host_config, masks
from cais.engine.records import ContainerRecord
from cais.engine.roots import image_layers, prepare_root
from cais.engine.table import Container
from cais.engine.user_namespaces import decide_identities
from cais.errors import CaisError, InvalidArgumentError, NotFoundError, UnsupportedError
from cais.images.records import check_platform
from cais.linux.cgroups import expand_slice
from cais.network.files import NameSettings, check_names
from cais.spec.container import LogConfig
from cais.spec.platform import host_platform, parse_platform
from cais.volumes.copyup import copy_merged
from cais.volumes.mounts import resolve_mounts

if TYPE_CHECKING:
    from cais.engine.core import Core
    from cais.engine.oci import Host
    from cais.images.store import ImageRecord
    from cais.spec.container import ContainerConfig, CreateBody, HostConfig
    from cais.spec.identities import IdentityMaps
    from cais.volumes.mounts import MountPoint, VolumeRequest

log = logging.getLogger(__name__)


class Creator:
    """Makes containers out of requests."""

    def __init__(self, core: Core, host: Host) -> None:
        self._core = core
        self._host = host

    async def create(
        self, name: str | None, body: CreateBody, platform: str | None
    ) -> tuple[str, list[str]]:
        """Create a container; return its id and warnings. See ``Containers.create``."""
        container_id = new_id()
        full_name = parse_name(name) if name else generate_name(self._core.table.is_name_taken)
        self._core.table.reserve_name(full_name, container_id)
        work = _Creation(self._core, self._host, container_id, full_name, body, platform)
        self._core.creations[container_id] = work.volumes
        try:
            record = await self._core.threads.run(work.decide)
            await self._make(record, work)
        except BaseException:
            self._core.table.release_name(full_name)
            await self._core.threads.run(work.undo)
            raise
        finally:
            del self._core.creations[container_id]
        container = Container(record)
        self._core.table.add(container)
        for volume in work.made_volumes:
            self._core.events.publish("volume", "create", volume, {"driver": "local"})
        self._core.announce(container, "create")
        return container_id, work.warnings

    async def _make(self, record: ContainerRecord, work: _Creation) -> None:
        """Make the files and commit the row, at once: start-up drops one without the other."""
        made, committed = await asyncio.gather(
            self._core.threads.run(work.make, record),
            self._core.state.put(record),
            return_exceptions=True,
        )
        if made is not None and committed is None:
            await self._core.state.delete(record.id)
        if failure := made or committed:
            raise failure


class _Creation:
    """The part of one creation that blocks, and how to undo it."""

    def __init__(
        self,
        core: Core,
        host: Host,
        container_id: str,
        name: str,
        body: CreateBody,
        platform: str | None,
    ) -> None:
        self._core = core
        self._host = host
        self._id = container_id
        self._name = name
        self._body = body
        self._platform = platform
        self.warnings: list[str] = []
        self._identities: IdentityMaps | None = None
        self.volumes: set[str] = set()
        """Names in use from now on, before any container in the table says so."""

        self.made_volumes: list[str] = []

    def decide(self) -> ContainerRecord:
        """Check and decide everything; volumes are made.

        Raises:
            CaisError: as ``Containers.create``; ``undo`` is to be called.

        """
        image = self._find_image()
        config = merge_config(self._body.config, image.config.config)
        host_config = self._adapt(config)
        config = replace(config, hostname=config.hostname or self._hostname(host_config))
        self._identities = decide_identities(self._core, host_config)
        self._check_names(config, host_config)
        mounts = self._resolve_mounts(image, host_config)
        path, *args = command_of(config)
        return ContainerRecord(
            id=self._id,
            name=self._name,
            created_at_ns=self._core.clock.wall_ns(),
            image_id=image.id,
            image_ref=self._body.config.image,
            parent=image.chain_id or "",
            path=path,
            args=args,
            config=config,
            host_config=host_config,
            networking=self._body.networking_config,
            mounts=mounts,
            identities=self._identities,
        )

    def make(self, record: ContainerRecord) -> None:
        """Make the container's own files; ``undo`` is to be called after a failure."""
        prepare_root(self._core, self._id, record.parent)
        if record.identities is not None:
            self._core.mapped_roots.check(self._core, record)
        self._core.copies.put(record)
        self._fill_volumes(record)

    def undo(self) -> None:
        """Remove what was made. Blocks."""
        with contextlib.suppress(NotFoundError):
            self._core.snapshots.remove(self._id)
        with contextlib.suppress(CaisError):  # the next start drops it
            self._core.copies.delete(self._id)
        for volume in self.made_volumes:
            try:
                self._core.volumes.remove(volume, force=True)
            except CaisError as exc:
                log.warning("volume %s stays behind: %s", volume, exc)

    def _find_image(self) -> ImageRecord:
        ref = self._body.config.image
        if not ref:
            raise InvalidArgumentError("no image specified")
        image = self._core.images.resolve(ref)
        wanted = parse_platform(self._platform) if self._platform else None
        check_platform(image, ref, wanted)
        have = image.platform
        if wanted is None and have.architecture and not have.runs_on(host_platform()):
            self.warnings.append(
                f"The requested image's platform ({have}) does not match the detected host "
                f"platform ({host_platform()}) and no specific platform was requested"
            )
        return image

    def _adapt(self, config: ContainerConfig) -> HostConfig:
        asked = self._body.host_config
        check_log_config(asked.log_config)
        asked = replace(asked, runtime=self._core.runtimes.check(asked.runtime))
        host_config, warnings = adapt_host_config(self._body.config, asked, self._host)
        self.warnings += warnings
        refuse_unsupported(config, host_config, self._body)
        _check_cgroup_parent(host_config.cgroup_parent, self._core.config.cgroup_driver)
        policy = host_config.restart_policy
        return replace(
            host_config,
            log_config=LogConfig(
                host_config.log_config.type or "json-file", host_config.log_config.config or {}
            ),
            restart_policy=replace(policy, name=policy.name or "no"),
            masked_paths=None if host_config.privileged else masks.masked_paths(host_config),
            readonly_paths=None if host_config.privileged else masks.read_only_paths(host_config),
        )

    def _check_names(self, config: ContainerConfig, host_config: HostConfig) -> None:
        check_names(
            NameSettings(
                hostname=config.hostname,
                domainname=config.domainname,
                extra_hosts=host_config.extra_hosts or (),
                dns=host_config.dns or (),
                dns_search=host_config.dns_search or (),
                dns_options=host_config.dns_options or (),
            )
        )

    def _hostname(self, host_config: HostConfig) -> str:
        return os.uname().nodename if host_config.network_mode == "host" else self._id[:12]

    def _resolve_mounts(self, image: ImageRecord, host_config: HostConfig) -> list[MountPoint]:
        given = image.config.config.volumes if image.config.config else None
        return resolve_mounts(
            volumes=self._body.config.volumes,
            host_config=host_config,
            image_volumes=given,
            create_volume=self._create_volume,
            volumes_from=self._mounts_of,
        )

    def _mounts_of(self, ref: str) -> list[MountPoint]:
        try:
            return list(self._core.table.resolve(ref).record.mounts)
        except NotFoundError as exc:  # which the docker CLI would take for a missing image
            raise InvalidArgumentError(str(exc)) from exc

    def _create_volume(self, request: VolumeRequest) -> tuple[str, str]:
        self.volumes.add(request.name)
        volume, is_new = self._core.volumes.create(
            request.name,
            driver=request.driver,
            options=request.options,
            labels=request.labels,
            owner=self._identities.root if self._identities else (0, 0),
        )
        self.volumes.add(volume.name)
        if is_new:
            self.made_volumes.append(volume.name)
        return volume.name, volume.mountpoint

    def _fill_volumes(self, record: ContainerRecord) -> None:
        """Give empty volumes what the image has at their place."""
        wanting = [mount for mount in record.mounts if mount.copy_up]
        if not wanting:
            return
        lowers = image_layers(self._core, record.parent)
        for mount in wanting:
            copy_merged(lowers, mount.destination, mount.source, record.identities)


def _check_cgroup_parent(parent: str, driver: str) -> None:
    if driver != "systemd" or not parent:
        return
    try:
        expand_slice(parent)
    except InvalidArgumentError as exc:
        raise InvalidArgumentError(
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
        ) from exc


def refuse_unsupported(config: ContainerConfig, host_config: HostConfig, body: CreateBody) -> None:
    """Refuse what later versions will do, by name.

    Raises:
        UnsupportedError: an option of Docker's that this version does not have.
        InvalidArgumentError: a network besides the mode, an address that cannot be had.

    """
    published = [port for port, bound in (host_config.port_bindings or {}).items() if bound]
    if published and host_config.network_mode != "host":
        raise UnsupportedError(
            "publishing ports is not supported yet by this version "
            f"(PortBindings: {', '.join(sorted(published))})"
        )
    if host_config.publish_all_ports and config.exposed_ports:
        raise UnsupportedError(
            "publishing ports is not supported yet by this version (PublishAllPorts)"
        )
    if host_config.links:
        raise UnsupportedError("legacy links are not supported (Links)")
    check_endpoints(body.networking_config, host_config.network_mode)
