"""A13, A14, A16, A25, P1: what the child does between clone3 and execve, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cais.linux.cgroups import detect
from cais.testing.bundles import Bundle
from cais.testing.isolation import PATIENCE, isolated

STARTER = """
import json, os, select, sys
sys.path.insert(0, sys.argv[1])
from cais.runtime import container
def wait(launch):
    while (running := launch.advance()) is None:
        select.select([launch], [], [])
    return running
def enter(name):
    path = f"{bundle}/{name}"
    return wait(container.begin_exec(id_, bundle, path, init.pidfd, stdio=streams))
bundle, id_ = sys.argv[2:]
streams = container.Stdio(0, 1, 2)
init = wait(container.begin(id_, bundle, stdio=streams))
try:
    for _ in range(2):
        done = enter("exec-1.json")
        os.waitid(os.P_PIDFD, done.pidfd, os.WEXITED)
    try:
        enter("bad.json")
    except container.LaunchError as error:
        assert error.kind == "user", error.message
finally:
    os.kill(init.pid, 9)
    os.waitid(os.P_PIDFD, init.pidfd, os.WEXITED)
    container.destroy(id_, bundle)
"""
POISON = (
    "etc/nsswitch.conf",
    "usr/lib/python3.11/traceback.py",
    "usr/lib/python3.11/encodings/idna.py",
    "lib/x86_64-linux-gnu/libnss_files.so.2",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
)
SOURCE = Path(__file__).parents[3] / "src"


def test_cve_2019_14271_nothing_is_imported_or_resolved_inside(tmp_path: Path) -> None:
    """strace (H8): after pivot_root or setns no engine code opens a module, a library, a locale."""

    def body() -> None:
        import json

        (tmp_path / "b").mkdir()
        bundle = Bundle(tmp_path / "b")
        for name in POISON:
            (bundle.rootfs / name).parent.mkdir(parents=True, exist_ok=True)
            (bundle.rootfs / name).write_text("poison\n")
        bundle.process["args"] = ["sleep", "60"]
        bundle.extras["user"] = "nobody:wheel"
        bundle.save()
        document = {"process": {**bundle.process, "args": ["true"]}, "user": "nobody"}
        (bundle.path / "exec-1.json").write_text(json.dumps(document))
        (bundle.path / "bad.json").write_text(json.dumps({**document, "user": "stranger"}))
        log = tmp_path / "strace"
        subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", log, "-e"),
                "trace=open,openat,openat2,execve,execveat,pivot_root,setns,stat,newfstatat",
                *(sys.executable, "-c", STARTER, SOURCE, bundle.path, bundle.id),
            ],
            check=True,
            timeout=60 * PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        inside: set[str] = set()
        opened: list[str] = []
        for line in log.read_text().splitlines():
            pid, _, call = line.partition(" ")
            call = call.strip()
            if call.startswith(("pivot_root(", "setns(")):
                inside.add(pid)
            elif call.startswith(("execve", "execveat")) and pid in inside:
                inside.discard(pid)
            elif pid in inside:
                opened.append(call)
        text = "\n".join(opened)
        assert "/etc/passwd" in text  # the trace saw the inside
        for forbidden in (".py", ".so", "nsswitch", "gconv", "locale", "python", "/usr/lib"):
            assert forbidden not in text, text

    isolated(body, timeout_s=90)


def test_cve_2021_43784_large_documents_arrive_whole(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        deep = "/".join(["d" * 200] * 18)
        source = tmp_path / "source"
        source.mkdir()
        bundle.config["mounts"] += [
            {
                "destination": f"/m/{deep}/{number}",
                "type": "bind",
                "source": str(source),
                "options": ["bind"],
            }
            for number in range(150)
        ]
        bundle.process["env"] += [f"V{n}={'x' * 90}" for n in range(10_000)]
        result = bundle.shell("env | grep -c ^V; grep -c ' /m/' /proc/self/mountinfo; echo $V9999")
        assert result.stdout.split() == ["10000", "150", "x" * 90]

    isolated(body, timeout_s=90)


def test_cve_2023_25809_cgroups_cannot_be_written(tmp_path: Path) -> None:
    script = (
        "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name release_agent"
        " -o -name memory.limit_in_bytes -o -name devices.allow -o -name notify_on_release); do"
        " echo 1 > $f && echo WROTE $f; done; mount -o remount,rw /sys/fs/cgroup && echo MOUNTED;"
        "find /sys/fs/cgroup -name release_agent; ls /sys/fs/cgroup | wc -l"
    )

    def body() -> None:
        for kinds in ((), ("cgroup",)):
            path = tmp_path / f"b{len(kinds)}"
            path.mkdir()
            bundle = Bundle(path)
            bundle.linux["namespaces"] += [{"type": kind} for kind in kinds]
            result = bundle.shell(script)
            (shown,) = result.stdout.split()  # nothing was written, mounted or to be released
            if detect().version == 1:  # v2 shows the files of the container's own group
                assert int(shown) == len(os.listdir("/sys/fs/cgroup")) - 1

    isolated(body)


def test_the_cgroup_namespace_hides_the_path(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["namespaces"].append({"type": "cgroup"})
        lines = bundle.run("cat", "/proc/self/cgroup").stdout.split()
        assert all(line.endswith(":/") for line in lines if not line.startswith("0::"))

    isolated(body)
