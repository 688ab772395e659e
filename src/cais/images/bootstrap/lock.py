"""Lock files: which packages an image was made of, so that it can be made again.

    {"image": "debian:bookworm", "architecture": "amd64",
     "releases": {"<suite>": "sha256:<of its signed InRelease>"},
     "packages": [{"name": ..., "version": ..., "architecture": ..., "sha256": ...}, ...]}

The packages decide what is in the image. The releases say which signed lists they were taken from;
a list is signed anew when any package in it changes, so another one is no difference.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cais.errors import ConflictError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package; ``sha256`` is of the .deb, as its signed list says."""

    name: str
    version: str
    architecture: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What one image was made of."""

    image: str
    architecture: str
    releases: Mapping[str, str]
    packages: tuple[Package, ...]

    def expect(self, made: Lock) -> None:
        """ConflictError, naming the packages, unless ``made`` is of the same ones."""
        for what in ("image", "architecture"):
            wanted, found = getattr(self, what), getattr(made, what)
            if wanted != found:
                raise ConflictError(f"the lock file is of {what} {wanted}, not {found}")
        differences = list(self._differences(made))
        if differences:
            more = len(differences) - _SHOWN
            rest = [f"and {more} more"] if more > 0 else []
            listed = "; ".join(differences[:_SHOWN] + rest)
            raise ConflictError(f"{self.image} is no longer what the lock file names: {listed}")

    def _differences(self, made: Lock) -> Iterator[str]:
        wanted = {(one.name, one.architecture): one for one in self.packages}
        found = {(one.name, one.architecture): one for one in made.packages}
        for key in sorted(wanted.keys() | found.keys()):
            old, new = wanted.get(key), found.get(key)
            if old is None:
                assert new is not None
                yield f"{new.name} {new.version} is new"
            elif new is None:
                yield f"{old.name} {old.version} is gone"
            elif old.version != new.version:
                yield f"{old.name} is {new.version}, locked is {old.version}"
            elif old.sha256 != new.sha256:
                yield f"{old.name} {old.version} has sha256 {new.sha256}, locked is {old.sha256}"


def load_lock(path: str) -> Lock | None:
    """Read a lock file; None: there is none.

    Raises:
        InvalidArgumentError: it is none, or cannot be read.

    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        return _parsed(document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidArgumentError(f"lock file {path}: {exc}") from exc


def save_lock(lock: Lock, path: str) -> None:
    """Write a lock file; all of it or nothing.

    Raises:
        InvalidArgumentError: it cannot be written.

    """
    document = asdict(lock) | {"packages": [asdict(one) for one in sorted(lock.packages)]}
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, sort_keys=True)
            file.write("\n")
        os.replace(temporary, path)
    except OSError as exc:
        raise InvalidArgumentError(f"lock file {path}: {exc.strerror}") from exc


def _parsed(document: dict[str, Any]) -> Lock:
    fields = {name: document[name] for name in ("image", "architecture", "releases")}
    packages = tuple(Package(**one) for one in document["packages"])
    texts = [fields["image"], fields["architecture"], *fields["releases"].values()]
    texts += [value for package in packages for value in asdict(package).values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a value is no string")
    return Lock(packages=packages, **fields)
