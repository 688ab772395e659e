"""Who loads, saves, pushes and pulls an image: a daemon through the docker CLI, or podman."""

import resource
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from bench.image_archives import NAME
from bench.subjects import Subject
from cais.testing.docker_registry import DockerRegistry

VERBS = ("load", "save", "push", "pull")
_TIMEOUT_S = 600
_REGISTRY = "docker-registry"


class Cost(NamedTuple):
    """What one operation took, the client included and the registry not."""

    wall_ms: float
    processor_ms: float


class ImageEngine:
    """An engine, a registry to pull from and one to push to, all on one loopback device.

    A round is ``load``, ``save``, ``push``, ``pull``, in this order: each leaves the image for
    the next, and prepares, unmeasured, what must not be there yet.

    Args:
        name: as shown.
        subject: in whose namespaces all of it runs.

    """

    def __init__(self, name: str, subject: Subject) -> None:
        self.name = name
        self.subject = subject
        self._stack = ExitStack()
        self._directory = subject.directory / name.lower()
        self._saved = self._directory / "saved.tar"

    def __enter__(self) -> Self:
        ports = {"source": 5055, "target": 5056}
        sites = {}
        for part, port in ports.items():
            directory = self._directory / part
            directory.mkdir(parents=True)
            sites[part] = DockerRegistry(self.subject, directory, port=port)
            self._stack.enter_context(sites[part])
        self._target = sites["target"]
        self._source_name, self._target_name = (f"{sites[part].name}/box" for part in ports)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self._directory)

    def offer(self, archive: Path) -> None:
        """Have the image in the registry that is pulled from."""
        self._archive = archive
        copy = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        places = [f"docker-archive:{archive}", f"docker://{self._source_name}"]
        self.subject.run_inside([*copy, *places], timeout_s=_TIMEOUT_S)

    def load(self) -> Cost:
        self._forget()
        return self._measured("load", "-i", str(self._archive))

    def save(self) -> Cost:
        self._saved.unlink(missing_ok=True)
        cost = self._measured("save", "-o", str(self._saved), NAME)
        self._saved.unlink()
        return cost

    def push(self) -> Cost:
        self._target.clear()
        self._run("tag", NAME, self._target_name)
        return self._measured("push", self._target_name)

    def pull(self) -> Cost:
        self._forget()
        return self._measured("pull", self._source_name)

    def _forget(self) -> None:
        names = (NAME, self._source_name, self._target_name)
        self._run("rmi", "--force", *names, check=False)
        self.subject.wait_until_trash_is_gone()

    def _measured(self, *arguments: str) -> Cost:
        self.subject.run_inside(["sync"])  # nobody waits for what was written before
        processor_s, began = self._processor_s(), time.perf_counter()
        self._run(*arguments)
        wall_s = time.perf_counter() - began
        return Cost(wall_s * 1000, (self._processor_s() - processor_s) * 1000)

    def _processor_s(self) -> float:
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        inside = self.subject.processor_s(without=_REGISTRY)
        return clients.ru_utime + clients.ru_stime + inside

    def _run(self, *arguments: str, check: bool = True) -> None:
        self.subject.docker(*arguments, check=check, timeout_s=_TIMEOUT_S)


class Podman(ImageEngine):
    """podman, without a daemon, with a store of its own."""

    def _run(self, *arguments: str, check: bool = True) -> None:
        roots = [f"--{part}={self._directory}/{part}" for part in ("root", "runroot")]
        command = ["env", "-u", "DOCKER_CONFIG", "podman", *roots, "--storage-driver=overlay"]
        verb, *rest = arguments
        plain = ["--tls-verify=false"] if verb in {"push", "pull"} else []
        self.subject.run_inside([*command, verb, *plain, *rest], check=check, timeout_s=_TIMEOUT_S)
