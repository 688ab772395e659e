"""A1, CVE-2019-5736: no way from a container to the file its runtime was started from."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cais.linux import memfd
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

SOURCE = Path(memfd.__file__).parents[2]
RUN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from cais.runtime.command import main; main()"
)


def test_cve_2019_5736_an_entry_point_that_is_our_program_is_refused(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "x").mkdir()
        (bundle.rootfs / "x/ep").symlink_to("/proc/self/exe")
        with pytest.raises(LaunchError) as refused:
            bundle.run("/x/ep")
        assert refused.value.kind == "not-permitted"
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            for name in ("/x/ep", "/proc/self/exe"):
                with pytest.raises(LaunchError):
                    bundle.execute(init, name)
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            end(init)
            bundle.destroy()

    isolated(body)


def test_cve_2019_5736_a_script_run_by_our_program_finds_a_sealed_copy(tmp_path: Path) -> None:
    """The interpreter is a copy on disk; a ``#!/proc/self/exe`` script starts whatever runs us."""
    python = tmp_path / "python"
    shutil.copy2(os.path.realpath(sys.executable), python)  # noqa: TID251 - a host path
    before = hashlib.sha256(python.read_bytes()).hexdigest()

    def body() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        payload = bundle.rootfs / "lib64/ld-linux-x86-64.so.2"
        payload.parent.mkdir()
        shutil.copy2("/bin/busybox", payload)
        script = bundle.rootfs / "ep"
        script.write_text("#!/proc/self/exe\n")
        script.chmod(0o755)
        bundle.process["args"] = ["/ep"]
        bundle.save()
        environment = {**os.environ, **memfd.library_environment()}
        home = sys.base_prefix
        subprocess.run(
            [
                python,
                "-S",
                "-c",
                RUN,
                SOURCE,
                "--root",
                tmp_path / "state",
                "run",
                "-b",
                bundle.path,
                bundle.id,
            ],
            env={**environment, "PYTHONHOME": home},
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )

    isolated(body)
    assert hashlib.sha256(python.read_bytes()).hexdigest() == before


def test_cve_2019_5736_the_runtime_command_runs_from_a_sealed_copy(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["args"] = ["sleep", "60"]
        bundle.save()
        command = ["cais-runtime", "--root", str(tmp_path / "state")]
        code = "import sys; from cais.runtime.command import main; sys.exit(main())"

        def runtime(*args: str) -> None:
            subprocess.run(
                [sys.executable, "-c", code, *command[1:], *args],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=PATIENCE_S,
            )

        runtime("create", "-b", str(bundle.path), "--pid-file", str(tmp_path / "pid"), bundle.id)
        pid = (tmp_path / "pid").read_text()
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
        try:
            assert memfd.is_sealed(fd)
            with pytest.raises(OSError, match=r"Text file busy|Operation not permitted"):
                os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY))
            links = {
                os.readlink(f"/proc/{pid}/fd/{n}").split(":")[0]
                for n in os.listdir(f"/proc/{pid}/fd")
            }
            # A2: what a created container holds: its streams, where it waits, the line to us.
            allowed = {"/dev/null", str(tmp_path / f"state/{bundle.id}/start"), "socket"}
            assert links - {os.readlink("/proc/self/fd/2").split(":")[0]} <= allowed
        finally:
            os.close(fd)
            runtime("delete", "-f", bundle.id)
            os.waitpid(int(pid), 0)  # it has come to us, a subreaper

    isolated(body)


def test_the_init_of_one_container_is_out_of_reach_of_another(tmp_path: Path) -> None:
    """Seals keep content; mode and owner belong to the inode, so no two containers share one."""

    def body() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        first, second = Bundle(tmp_path / "one", "first"), Bundle(tmp_path / "two", "second")
        for bundle in (first, second):
            bundle.extras["init"] = True
        for mode in ("000", "4755"):
            assert first.shell(f"chmod {mode} /proc/1/exe").code == 0
            found = second.shell("stat -Lc %a /proc/1/exe")
            assert (found.code, found.stdout) == (0, "555\n"), found.stderr

    isolated(body)
