"""``debian:SUITE`` and ``ubuntu:SUITE``: a minimal system, installed from signed packages.

mmdebstrap installs it with the host's apt, which takes nothing that the distribution's own keyring
has not signed. The result depends on the packages alone (``rootfs``): not on the host, its clock or
the directory. With a lock (``lock``) the packages are exactly those, or it is refused.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cais.errors import InvalidArgumentError, UnavailableError
from cais.images.bootstrap.docker_archive import spooled, wrap
from cais.images.bootstrap.lock import Lock, Package
from cais.images.bootstrap.rootfs import newest_time, reproducible

if TYPE_CHECKING:
    from collections.abc import Iterator

_is_suite = re.compile(r"[a-z][a-z0-9.-]{0,63}").fullmatch
_is_mirror = re.compile(r"(?:https?|file|copy)://[!-~]+|/[!-~]+").fullmatch
_SIGNED_ONLY = (
    'Acquire::AllowInsecureRepositories "false"',
    'Acquire::AllowDowngradeToInsecureRepositories "false"',
    'APT::Get::AllowUnauthenticated "false"',
)
_FACTS = """
set -e
sha256sum "$1"/var/lib/apt/lists/*Release > {place}/releases
dpkg-query --admindir="$1/var/lib/dpkg" --show \
    --showformat='${{db:Status-Abbrev}} ${{Package}}=${{Version}}\\n' \
    | sed -n 's/^ii  *//p' > {place}/installed
xargs env APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-cache show < {place}/installed > {place}/packages
"""
_PIN = """
set -e
mkdir -p "$1/etc/apt/preferences.d"
cp {place}/preferences "$1/etc/apt/preferences.d/cais-lock"
"""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where its packages come from."""

    name: str
    keyring: str
    keyring_package: str
    mirror: str
    """Empty: mmdebstrap's own list, which has the security updates too."""


DISTRIBUTIONS = {
    "debian": Distribution(
        "debian", "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", ""
    ),
    "ubuntu": Distribution(
        "ubuntu",
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        "ubuntu-keyring",
        "http://archive.ubuntu.com/ubuntu",
    ),
}


@dataclass(frozen=True, slots=True)
class Source:
    """What to install, and from where."""

    distribution: Distribution
    suite: str
    mirror: str = ""
    """Another than the distribution's."""

    keyring: str = ""
    """Another than the distribution's."""

    variant: str = "minbase"
    """Of mmdebstrap."""

    @property
    def image(self) -> str:
        """The image's name."""
        return f"{self.distribution.name}:{self.suite}"


def find_source(name: str, mirror: str = "") -> Source:
    """Return what ``debian``, ``debian:SUITE`` or ``ubuntu:SUITE`` stands for.

    Raises:
        InvalidArgumentError: nothing of ours.

    """
    distribution, separator, suite = name.partition(":")
    if distribution == "debian" and not separator:
        suite = "stable"
    if distribution not in DISTRIBUTIONS or not _is_suite(suite):
        known = "busybox, debian[:SUITE] and ubuntu:SUITE"
        raise InvalidArgumentError(f"cannot bootstrap {name[:80]!r}: there are {known}")
    if mirror and not _is_mirror(mirror):
        raise InvalidArgumentError(f"{mirror[:200]!r} is no address of a mirror")
    return Source(DISTRIBUTIONS[distribution], suite, mirror)


def build_image(source: Source, lock: Lock | None = None) -> tuple[BinaryIO, Lock]:
    """Return the archive of a minimal system, and what it was made of.

    Blocks: for a download and an installation, tens of seconds.

    Raises:
        ConflictError: the packages are not those of ``lock``.
        UnavailableError: mmdebstrap or the keyring is not installed, or mmdebstrap failed (a
            repository is not signed, not to be reached, has no such suite); its last lines are in
            the text.

    """
    began = int(time.time())
    with (
        tempfile.TemporaryDirectory(prefix="cais-bootstrap-") as place,
        tempfile.TemporaryFile() as rootfs,
    ):
        _install(source, lock, Path(place), rootfs.fileno(), began)
        made = _facts(source.image, Path(place))
        if lock is not None:
            lock.expect(made)
        newest = newest_time(rootfs, began)
        layer = spooled(reproducible(rootfs, newest))
    return wrap(source.image, layer, ["bash"], newest), made


def _install(source: Source, lock: Lock | None, place: Path, target_fd: int, began: int) -> None:
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError("mmdebstrap is not installed: apt-get install mmdebstrap")
    keyring = source.keyring or source.distribution.keyring
    if not os.path.exists(keyring):
        package = source.distribution.keyring_package
        raise UnavailableError(f"there is no {keyring} to verify packages: install {package}")
    hooks = [f"--customize-hook={_FACTS.format(place=shlex.quote(str(place)))}"]
    if lock is not None:
        (place / "preferences").write_text("\n".join(map(_pin, lock.packages)))
        hooks.append(f"--setup-hook={_PIN.format(place=shlex.quote(str(place)))}")
    mirror = source.mirror or source.distribution.mirror
    done = subprocess.run(
        [
            *("mmdebstrap", f"--variant={source.variant}", "--format=tar"),
            *(f"--keyring={keyring}", *(f"--aptopt={option}" for option in _SIGNED_ONLY), *hooks),
            *(source.suite, "-", *([mirror] if mirror else [])),
        ],
        stdout=target_fd,
        stderr=subprocess.PIPE,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(began), "LC_ALL": "C.UTF-8"},
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"mmdebstrap {source.suite}: {_faults(done.stderr)}")


def _pin(package: Package) -> str:
    """Return a paragraph of apt_preferences(5): this version, even if it is an older one."""
    return f"Package: {package.name}\nPin: version {package.version}\nPin-Priority: 1001\n"


def _facts(image: str, place: Path) -> Lock:
    """Read what the hook wrote down."""
    releases = {}
    for line in (place / "releases").read_text().splitlines():
        sha256, _, path = line.partition("  ")
        releases[os.path.basename(path)] = f"sha256:{sha256}"
    installed = set((place / "installed").read_text().split())
    packages = {
        package
        for package in _paragraphs((place / "packages").read_text())
        if f"{package.name}={package.version}" in installed
    }
    missing = installed - {f"{one.name}={one.version}" for one in packages}
    if missing:
        raise UnavailableError(f"no signed list names {', '.join(sorted(missing)[:5])}")
    architectures = {one.architecture for one in packages} - {"all"}
    return Lock(image, "".join(sorted(architectures)[:1]), releases, tuple(sorted(packages)))


def _paragraphs(text: str) -> Iterator[Package]:
    """Yield the packages of ``apt-cache show``."""
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z]\S*: ", line)
        )
        if "SHA256" in fields:
            yield Package(
                fields["Package"], fields["Version"], fields["Architecture"], fields["SHA256"]
            )


def _faults(text: bytes) -> str:
    """Return what apt and dpkg complained of; the first complaint is the cause of the others."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith(("E:", "dpkg: error"))]
    return " / ".join(faults[:3] or lines[-3:])
