"""The OCI runtime document: its shape for the type checker, and the parser of ``config.json``.

Documents stay plain dictionaries, so that loading one costs the runtime nothing but ``json``; the
TypedDicts exist for mypy alone. ``parse_config`` is the only door: what it returns has every
member of the right type and no null member, so readers use ``.get`` without further checks.

Import-light: no typing, no dataclasses at run time.

Spec: OCI runtime-spec 1.2, config.md, config-linux.md, runtime.md "State".
"""
# ruff: noqa: D101 - the classes repeat the specification, which documents them

from __future__ import annotations

from cais.errors import InvalidArgumentError
from cais.spec import runtime_schema, schema, strict_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypedDict

    class User(TypedDict, total=False):
        uid: int
        gid: int
        umask: int
        additionalGids: list[int]
        username: str

    class Capabilities(TypedDict, total=False):
        bounding: list[str]
        permitted: list[str]
        effective: list[str]
        inheritable: list[str]
        ambient: list[str]

    class Rlimit(TypedDict):
        type: str
        soft: int
        hard: int

    class ConsoleSize(TypedDict):
        height: int
        width: int

    IoPriority = TypedDict("IoPriority", {"class": str, "priority": int}, total=False)

    class Scheduler(TypedDict, total=False):
        policy: str
        nice: int
        priority: int
        flags: list[str]
        runtime: int
        deadline: int
        period: int

    class ExecCpuAffinity(TypedDict, total=False):
        initial: str
        final: str

    class Process(TypedDict, total=False):
        args: list[str]
        cwd: str
        env: list[str]
        terminal: bool
        consoleSize: ConsoleSize
        user: User
        capabilities: Capabilities
        apparmorProfile: str
        selinuxLabel: str
        oomScoreAdj: int
        noNewPrivileges: bool
        rlimits: list[Rlimit]
        scheduler: Scheduler
        ioPriority: IoPriority
        execCPUAffinity: ExecCpuAffinity

    class IdMapping(TypedDict):
        containerID: int
        hostID: int
        size: int

    class Mount(TypedDict, total=False):
        destination: str
        type: str
        source: str
        options: list[str]
        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]

    class Root(TypedDict, total=False):
        path: str
        readonly: bool

    class Hook(TypedDict, total=False):
        path: str
        args: list[str]
        env: list[str]
        timeout: int

    class Hooks(TypedDict, total=False):
        prestart: list[Hook]
        createRuntime: list[Hook]
        createContainer: list[Hook]
        startContainer: list[Hook]
        poststart: list[Hook]
        poststop: list[Hook]

    NamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]

    class Namespace(TypedDict, total=False):
        type: NamespaceType
        path: str

    class Device(TypedDict, total=False):
        type: str
        path: str
        major: int
        minor: int
        fileMode: int
        uid: int
        gid: int

    class DeviceRule(TypedDict, total=False):
        allow: bool
        type: str
        major: int
        minor: int
        access: str

    class MemoryLimits(TypedDict, total=False):
        limit: int
        reservation: int
        swap: int
        kernel: int
        kernelTCP: int
        swappiness: int
        disableOOMKiller: bool
        useHierarchy: bool
        checkBeforeUpdate: bool

    class CpuLimits(TypedDict, total=False):
        shares: int
        quota: int
        burst: int
        period: int
        realtimeRuntime: int
        realtimePeriod: int
        cpus: str
        mems: str
        idle: int

    class PidsLimit(TypedDict):
        limit: int

    class ThrottleDevice(TypedDict):
        major: int
        minor: int
        rate: int

    class WeightDevice(TypedDict, total=False):
        major: int
        minor: int
        weight: int
        leafWeight: int

    class BlockIo(TypedDict, total=False):
        weight: int
        leafWeight: int
        weightDevice: list[WeightDevice]
        throttleReadBpsDevice: list[ThrottleDevice]
        throttleWriteBpsDevice: list[ThrottleDevice]
        throttleReadIOPSDevice: list[ThrottleDevice]
        throttleWriteIOPSDevice: list[ThrottleDevice]

    class HugepageLimit(TypedDict):
        pageSize: str
        limit: int

    class Resources(TypedDict, total=False):
        devices: list[DeviceRule]
        memory: MemoryLimits
        cpu: CpuLimits
        pids: PidsLimit
        blockIO: BlockIo
        hugepageLimits: list[HugepageLimit]
        network: dict[str, Any]
        rdma: dict[str, dict[str, int]]
        unified: dict[str, str]

    class SeccompArg(TypedDict, total=False):
        index: int
        value: int
        valueTwo: int
        op: str

    class SeccompRule(TypedDict, total=False):
        names: list[str]
        action: str
        errnoRet: int
        args: list[SeccompArg]

    class Seccomp(TypedDict, total=False):
        defaultAction: str
        defaultErrnoRet: int
        architectures: list[str]
        flags: list[str]
        listenerPath: str
        listenerMetadata: str
        syscalls: list[SeccompRule]

    class TimeOffset(TypedDict, total=False):
        secs: int
        nanosecs: int

    class Personality(TypedDict, total=False):
        domain: str
        flags: list[str]

    class MemoryPolicy(TypedDict, total=False):
        mode: str
        nodes: str
        flags: list[str]

    class Linux(TypedDict, total=False):
        namespaces: list[Namespace]
        uidMappings: list[IdMapping]
        gidMappings: list[IdMapping]
        timeOffsets: dict[str, TimeOffset]
        devices: list[Device]
        netDevices: dict[str, dict[str, str]]
        cgroupsPath: str
        resources: Resources
        rootfsPropagation: str
        seccomp: Seccomp
        sysctl: dict[str, str]
        maskedPaths: list[str]
        readonlyPaths: list[str]
        mountLabel: str
        intelRdt: dict[str, Any]
        memoryPolicy: MemoryPolicy
        personality: Personality

    class Config(TypedDict, total=False):
        ociVersion: str
        process: Process
        root: Root
        hostname: str
        domainname: str
        mounts: list[Mount]
        hooks: Hooks
        annotations: dict[str, str]
        linux: Linux

    class State(TypedDict, total=False):
        ociVersion: str
        id: str
        status: Literal["creating", "created", "running", "stopped"]
        pid: int
        bundle: str
        annotations: dict[str, str]


OCI_VERSION = "1.2.0"  # of what is written here
NEWEST_OCI_VERSION = "1.3.0"  # of what is read: all it adds for Linux is known
CONFIG_LIMIT_BYTES = 32 * 1024 * 1024  # 5000 mounts of 4 KiB paths are legitimate (CVE-2021-43784)


class InvalidConfigError(InvalidArgumentError):
    """The document breaks the OCI runtime specification; ``faults`` lists every place."""

    def __init__(self, what: str, faults: list[str]) -> None:
        super().__init__(f"invalid {what}: " + "; ".join(faults))
        self.faults = tuple(faults)


def parse_config(text: bytes | str) -> Config:
    """Decode and validate a ``config.json``; null members are gone from the result.

    Raises:
        InvalidJsonError: not strict JSON, or longer than 32 MiB.
        InvalidConfigError: with every fault and its JSON path.

    """
    return validate(strict_json.loads(text, CONFIG_LIMIT_BYTES))


def validate_process(document: object) -> Process:
    """Check a bare ``process`` object, as ``exec --process`` takes it; return it without nulls.

    Raises:
        InvalidConfigError: with every fault and its JSON path.

    """
    process: Process = schema.without_nulls(document)
    faults: list[str] = []
    runtime_schema.PROCESS(process, "process", faults)
    if not faults:
        runtime_schema.check_process(process, faults)
    _raise_if(faults, "process document")
    return process


def validate(document: object) -> Config:
    """Check types first, then the rules between members; return a copy without null members.

    Raises:
        InvalidConfigError: with every fault and its JSON path.

    """
    config: Config = schema.without_nulls(document)
    faults: list[str] = []
    runtime_schema.CONFIG(config, "", faults)
    if not faults:
        runtime_schema.check_rules(config, faults)
    _raise_if(faults, "config.json")
    return config


def validate_resources(document: object) -> Resources:
    """Check a bare ``linux.resources`` object, as ``update`` takes it; return it without nulls.

    Raises:
        InvalidConfigError: with every fault and its JSON path.

    """
    resources: Resources = schema.without_nulls(document)
    faults: list[str] = []
    runtime_schema.RESOURCES(resources, "resources", faults)
    _raise_if(faults, "resources document")
    return resources


def _raise_if(faults: list[str], what: str) -> None:
    if faults:
        raise InvalidConfigError(what, faults)
