"""Rows of memory: what the daemon has at most while it handles a layer of 2 GiB."""

import shutil
from collections.abc import Iterator

from bench.image_archives import BIG_NAME, big_layer
from bench.measure import Row, Sample
from bench.subjects import Subject
from cais.testing.docker_registry import DockerRegistry

MOST_MIB = 150e6 / 2**20  # of the daemon; its helpers have no limit of their own
_TIMEOUT_S = 900
_WHO = ("caisd (RSS)", "all of ours (PSS)")
_VERBS = ("load", "save", "push", "pull")


def names() -> list[str]:
    """Return the names of the rows."""
    return [_name(verb, who) for verb in _VERBS for who in _WHO]


def measure(ours: Subject, only: str) -> Iterator[Row]:
    """Yield how much memory there was at most, of the daemon and of all our processes.

    These are caisd, the shim with its spares, and the processes that unpack.
    """
    if not any(only in name for name in names()) or not shutil.which("docker-registry"):
        return
    path = str(big_layer())
    directory = ours.directory / "memory"
    directory.mkdir()
    with DockerRegistry(ours, directory) as registry:
        name = f"{registry.name}/big"
        commands: dict[str, list[tuple[str, ...]]] = {
            "load": [("load", "-i", path)],
            "save": [("save", "-o", str(directory / "saved.tar"), BIG_NAME)],
            "push": [("tag", BIG_NAME, name), ("push", name)],
            "pull": [("rmi", BIG_NAME, name), ("pull", name)],
        }
        for verb, words in commands.items():
            with ours.watched_memory() as most:
                for arguments in words:
                    ours.docker(*arguments, timeout_s=_TIMEOUT_S)
            for who, size_mib, budget in zip(_WHO, most(), (1.0, None), strict=True):
                limit = Sample([MOST_MIB])
                yield Row(_name(verb, who), "MiB", "the limit", Sample([size_mib]), limit, budget)
        ours.docker("rmi", name)
    shutil.rmtree(directory)


def _name(verb: str, who: str) -> str:
    return f"most memory of {who}, docker {verb}, image of 2 GiB"
