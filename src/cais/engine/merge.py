"""A container's configuration from the request and the image: what the request leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.engine.signals import parse_signal
from cais.errors import InvalidArgumentError
from cais.spec.container import HealthConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.spec import image
    from cais.spec.container import ContainerConfig

_MINIMUM_PROBE_NS = 1_000_000


def merge_config(asked: ContainerConfig, given: image.ContainerConfig | None) -> ContainerConfig:
    """Fill what the request leaves open from the image, then check the whole.

    Raises:
        InvalidArgumentError: no command; malformed variable, signal, directory or health check.

    """
    merged = asked if given is None else fill_config(asked, given)
    if merged.entrypoint == [""]:
        merged = replace(merged, entrypoint=None)
    check_config(merged)
    return merged


def command_of(config: ContainerConfig) -> list[str]:
    """Return the entry point with the command after it."""
    return [*(config.entrypoint or ()), *(config.cmd or ())]


def fill_config(asked: ContainerConfig, given: image.ContainerConfig) -> ContainerConfig:
    """Fill what ``asked`` leaves open; nothing is checked."""
    cmd, entrypoint = asked.cmd, asked.entrypoint
    if not entrypoint:
        if not cmd:
            cmd = given.cmd
        if entrypoint is None:
            entrypoint = given.entrypoint
    return replace(
        asked,
        cmd=cmd,
        entrypoint=entrypoint,
        user=asked.user or given.user,
        env=_merge_env(given.env or (), asked.env or ()),
        exposed_ports={**(given.exposed_ports or {}), **(asked.exposed_ports or {})} or None,
        volumes={**(given.volumes or {}), **(asked.volumes or {})} or None,
        labels={**(given.labels or {}), **(asked.labels or {})},
        working_dir=asked.working_dir or given.working_dir,
        stop_signal=asked.stop_signal or given.stop_signal,
        stop_timeout=given.stop_timeout if asked.stop_timeout is None else asked.stop_timeout,
        shell=asked.shell or given.shell,
        healthcheck=_merge_healthcheck(asked.healthcheck, given.healthcheck),
    )


def _merge_env(given: Sequence[str], asked: Sequence[str]) -> list[str]:
    named = {entry.partition("=")[0] for entry in asked}
    return [*asked, *(entry for entry in given if entry.partition("=")[0] not in named)]


def _merge_healthcheck(
    asked: HealthConfig | None, given: image.Healthcheck | None
) -> HealthConfig | None:
    if given is None:
        return asked
    mine = asked or HealthConfig()
    return HealthConfig(
        test=mine.test or given.test,
        interval=mine.interval or given.interval,
        timeout=mine.timeout or given.timeout,
        start_period=mine.start_period or given.start_period,
        start_interval=mine.start_interval or given.start_interval,
        retries=mine.retries or given.retries,
    )


def check_config(config: ContainerConfig) -> None:
    """Refuse what Docker refuses in the part that does not depend on the host.

    Raises:
        InvalidArgumentError: Docker's texts.

    """
    command = command_of(config)
    if not command:
        raise InvalidArgumentError("no command specified")
    if any("\0" in word for word in command):
        raise InvalidArgumentError("invalid command: a word contains a NUL character")
    for entry in config.env or ():
        if not entry.partition("=")[0] or "\0" in entry:
            raise InvalidArgumentError(f"invalid environment variable: {entry[:256]}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgumentError(
            f"the working directory '{config.working_dir}' is invalid, it needs to be "
            "an absolute path"
        )
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.healthcheck is not None:
        _check_healthcheck(config.healthcheck)


def _check_healthcheck(check: HealthConfig) -> None:
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value != 0 and value < _MINIMUM_PROBE_NS:
            raise InvalidArgumentError(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgumentError("Retries in Healthcheck cannot be negative")
