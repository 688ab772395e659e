"""From the flags of ``run`` to the body of ``POST /containers/create``.

Only what the client must know is checked here (files it reads, sizes, forms); names and
combinations are the daemon's to judge.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from cais.cli.failures import read_flag
from cais.cli.mounts import parse_device, parse_mount, split_volumes
from cais.errors import InvalidArgumentError, NotFoundError
from cais.spec.durations import parse_duration_ns
from cais.spec.units import ram_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Options = dict[str, Any]
Document = dict[str, Any]


def create_body(options: Options, image: str, command: Sequence[str]) -> Document:
    """Return the create document.

    Raises:
        InvalidArgumentError: a flag whose value has not its form.
        NotFoundError: a file a flag names does not exist.

    """
    binds, anonymous = split_volumes(options["volume"])
    attached = attached_streams(options)
    body: Document = {
        "Hostname": options["hostname"] or "",
        "Domainname": options["domainname"] or "",
        "User": options["user"] or "",
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Tty": options["tty"],
        "OpenStdin": options["interactive"],
        "StdinOnce": "stdin" in attached and options["interactive"],
        "Env": read_environment(options["env"], options["env_file"], os.environ),
        "Cmd": list(command) or None,
        "Image": image,
        "WorkingDir": options["workdir"] or "",
        "Labels": read_pairs(options["label"], options["label_file"]),
        "Volumes": {path: {} for path in anonymous} or None,
        "ExposedPorts": {_port(text): {} for text in options["expose"]},
        "HostConfig": _host_config(options, binds),
    }
    if options["entrypoint"] is not None:
        # Docker's way to clear an entrypoint is one empty word.
        body["Entrypoint"] = [options["entrypoint"]]
    _add_given(body, {
        "StopSignal": options["stop_signal"],
        "StopTimeout": options["stop_timeout"],
        "Healthcheck": _healthcheck(options),
        "NetworkingConfig": _networking(options),
    })  # fmt: skip
    return body


def attached_streams(options: Options) -> set[str]:
    """Return which of stdin, stdout and stderr the client attaches."""
    if options["attach"]:
        chosen = {name.lower() for name in options["attach"]}
        if unknown := chosen - {"stdin", "stdout", "stderr"}:
            raise InvalidArgumentError(
                f"invalid argument {unknown.pop()!r}: valid streams are STDIN, STDOUT and STDERR"
            )
        return chosen
    if options.get("detach"):
        return set()
    return {"stdout", "stderr"} | ({"stdin"} if options["interactive"] else set())


def _host_config(options: Options, binds: list[str]) -> Document:
    network = options["network"] or "default"
    config: Document = {
        "Binds": binds,
        "NetworkMode": network,
        "AutoRemove": options["rm"],
        "Privileged": options["privileged"],
        "ReadonlyRootfs": options["read_only"],
        "PublishAllPorts": options["publish_all"],
        "CapAdd": list(options["cap_add"]) or None,
        "CapDrop": list(options["cap_drop"]) or None,
        "Dns": list(options["dns"]),
        "DnsOptions": list(options["dns_option"]),
        "DnsSearch": list(options["dns_search"]),
        "ExtraHosts": list(options["add_host"]) or None,
        "GroupAdd": list(options["group_add"]) or None,
        "VolumesFrom": list(options["volumes_from"]) or None,
        "SecurityOpt": [_security_option(text) for text in options["security_opt"]] or None,
        "Sysctls": _pairs(options["sysctl"]),
        "StorageOpt": _pairs(options["storage_opt"]) or None,
        "Annotations": _pairs(options["annotation"]) or None,
        "Tmpfs": _tmpfs(options["tmpfs"]),
        "Mounts": [read_flag("--mount", parse_mount, text) for text in options["mount"]] or None,
        "Devices": [read_flag("--device", parse_device, text) for text in options["device"]],
        "DeviceCgroupRules": list(options["device_cgroup_rule"]) or None,
        "PortBindings": _port_bindings(options["publish"]),
        "Ulimits": [read_flag("--ulimit", _ulimit, text) for text in options["ulimit"]] or None,
        "RestartPolicy": restart_policy(options["restart"]),
        "LogConfig": {"Type": options["log_driver"] or "", "Config": _pairs(options["log_opt"])},
    }
    _add_given(config, limits(options))
    _add_given(config, _choices(options))
    return config


def _choices(options: Options) -> Document:
    """Return what the daemon decides where nothing is given, by its API names."""
    return {
        "CgroupParent": options["cgroup_parent"],
        "CgroupnsMode": options["cgroupns"],
        "IpcMode": options["ipc"],
        "PidMode": options["pid"],
        "UTSMode": options["uts"],
        "UsernsMode": options["userns"],
        "Runtime": options["runtime"],
        "VolumeDriver": options["volume_driver"],
        "ContainerIDFile": options["cidfile"],
        "Init": options["init"] or None,
        "OomScoreAdj": options["oom_score_adj"],
        "OomKillDisable": options["oom_kill_disable"] or None,
    }


def limits(options: Options) -> Document:
    """Return the resource limits by their API names; None for those not given."""
    swap, cpus = options["memory_swap"], options["cpus"]
    return {
        "Memory": _size("-m, --memory", options["memory"]),
        "MemoryReservation": _size("--memory-reservation", options["memory_reservation"]),
        "MemorySwap": -1 if swap == "-1" else _size("--memory-swap", swap),
        "MemorySwappiness": options["memory_swappiness"],
        "NanoCpus": cpus and read_flag("--cpus", _nano_cpus, cpus),
        "CpuShares": options["cpu_shares"],
        "CpuPeriod": options["cpu_period"],
        "CpuQuota": options["cpu_quota"],
        "CpusetCpus": options["cpuset_cpus"],
        "CpusetMems": options["cpuset_mems"],
        "PidsLimit": options["pids_limit"],
        "BlkioWeight": options["blkio_weight"],
        "ShmSize": _size("--shm-size", options["shm_size"]),
    }


def _add_given(document: Document, values: Mapping[str, object]) -> None:
    document.update({name: value for name, value in values.items() if value is not None})


def _size(flag: str, text: str | None) -> int | None:
    return None if text is None else read_flag(flag, ram_bytes, text)


def _nano_cpus(text: str) -> int:
    whole, _, fraction = text.partition(".")
    digits = (whole or "0") + fraction
    if not digits.isdecimal():
        raise InvalidArgumentError(f"failed to parse {text} as a rational number")
    if len(fraction) > 9:
        raise InvalidArgumentError("value is too precise")
    return int(whole or 0) * 10**9 + int(fraction.ljust(9, "0"))


def read_environment(
    words: Iterable[str], files: Iterable[str], ours: Mapping[str, str]
) -> list[str]:
    """Return ``NAME=value`` lines; a bare NAME takes our value, or is left out without one."""
    lines = [line for file in files for line in _file_lines(file)]
    result = []
    for word in (*lines, *words):
        name, separator, _ = word.partition("=")
        if not name:
            raise InvalidArgumentError(f"invalid environment variable: {word}")
        if separator:
            result.append(word)
        elif name in ours:
            result.append(f"{name}={ours[name]}")
    return result


def read_pairs(words: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Return the ``key=value`` pairs of labels; a bare key has an empty value."""
    return _pairs([*(line for file in files for line in _file_lines(file)), *words])


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _file_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise NotFoundError(f"open {path}: {error.strerror}") from error
    return [line for line in lines if line and not line.startswith("#")]


def _security_option(text: str) -> str:
    name, separator, value = text.partition("=")
    if name != "seccomp" or not separator or value in ("unconfined", "builtin"):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            return "seccomp=" + json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        raise NotFoundError(
            f"opening seccomp profile ({value}) failed: {error.strerror}"
        ) from error
    except ValueError as error:
        raise InvalidArgumentError(
            f"compacting json for seccomp profile ({value}) failed: {error}"
        ) from error


def _tmpfs(words: Iterable[str]) -> dict[str, str] | None:
    return {path: rest for path, _, rest in (word.partition(":") for word in words)} or None


def _ulimit(text: str) -> Document:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError as error:
        raise InvalidArgumentError(f"invalid ulimit argument: {text}") from error


def restart_policy(text: str | None) -> Document:
    """Return the policy ``on-failure:3`` means. Raises InvalidArgumentError."""
    name, separator, count = (text or "no").partition(":")
    if separator and not count.isdecimal():
        raise InvalidArgumentError(
            "invalid restart policy format: maximum retry count must be an integer"
        )
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _port_bindings(words: Iterable[str]) -> Document:
    bindings: Document = {}
    for word in words:
        host, _, container = word.rpartition(":")
        address, _, port = host.rpartition(":")
        bindings.setdefault(_port(container), []).append(
            {"HostIp": address.strip("[]"), "HostPort": port}
        )
    return bindings


def _healthcheck(options: Options) -> Document | None:
    if options["no_healthcheck"]:
        return {"Test": ["NONE"]}
    check: Document = {}
    _add_given(check, {
        "Test": ["CMD-SHELL", options["health_cmd"]] if options["health_cmd"] else None,
        "Interval": _nanoseconds("--health-interval", options["health_interval"]),
        "Timeout": _nanoseconds("--health-timeout", options["health_timeout"]),
        "StartPeriod": _nanoseconds("--health-start-period", options["health_start_period"]),
        "Retries": options["health_retries"],
    })  # fmt: skip
    return check or None


def _nanoseconds(flag: str, text: str | None) -> int | None:
    return None if text is None else read_flag(flag, parse_duration_ns, text)


def _networking(options: Options) -> Document | None:
    endpoint: Document = {}
    if options["ip"]:
        endpoint["IPAMConfig"] = {"IPv4Address": options["ip"]}
    if options["network_alias"]:
        endpoint["Aliases"] = list(options["network_alias"])
    if options["mac_address"]:
        endpoint["MacAddress"] = options["mac_address"]
    if not endpoint:
        return None
    return {"EndpointsConfig": {options["network"] or "default": endpoint}}
