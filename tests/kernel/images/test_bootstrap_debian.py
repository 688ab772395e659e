"""Debian images made by mmdebstrap: only of signed packages, and always the same."""

import hashlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cais.errors import ConflictError, UnavailableError
from cais.images.bootstrap.debian import DISTRIBUTIONS, Source, build_image, find_source
from cais.images.bootstrap.lock import Lock, load_lock, save_lock

KEYRING = DISTRIBUTIONS["debian"].keyring
pytestmark = pytest.mark.skipif(
    shutil.which("mmdebstrap") is None or not os.path.exists(KEYRING),
    reason="needs mmdebstrap and debian-archive-keyring",
)
long = pytest.mark.skipif(
    "CAIS_TEST_DEBIAN" not in os.environ,
    reason="downloads and installs Debian twice; CAIS_TEST_DEBIAN=1 asks for it",
)


@pytest.mark.parametrize("release", ["Suite: test\nCodename: test\n", None], ids=["plain", "none"])
def test_a_repository_that_is_not_signed_is_refused(tmp_path: Path, release: str | None) -> None:
    lists = tmp_path / "dists/test/main/binary-amd64"
    lists.mkdir(parents=True)
    (lists / "Packages").write_text("")
    if release is not None:
        (tmp_path / "dists/test/Release").write_text(
            f"{release}Architectures: amd64\nComponents: main\n"
        )
    tmp_path.chmod(0o755)
    source = Source(DISTRIBUTIONS["debian"], "test", mirror=f"copy://{tmp_path}")
    with pytest.raises(
        UnavailableError,
        match=r"mmdebstrap test: .*(not signed|have a Release file)",
    ):
        build_image(source)


@long
@pytest.mark.timeout(1800)
def test_the_same_packages_give_the_same_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once without a lock, once with it: another directory, another time."""
    path = os.fspath(tmp_path / "lock")
    source = find_source("debian:bookworm")
    digests = []
    for number in range(2):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.setenv("TMPDIR", os.fspath(place))
        archive, made = build_image(source, load_lock(path))
        with archive:
            digests.append(hashlib.file_digest(archive, "sha256").hexdigest())
        save_lock(made, path)
        time.sleep(1.1)  # another second: nothing has to wait for it
    assert digests[0] == digests[1]


@long
@pytest.mark.timeout(1800)
def test_packages_that_are_gone_are_named() -> None:
    source = find_source("debian:bookworm")
    archive, made = build_image(source)
    archive.close()
    older = tuple(
        replace(package, version="0.1") if package.name == "bash" else package
        for package in made.packages
    )
    lock = Lock(made.image, made.architecture, made.releases, older)
    with pytest.raises(ConflictError, match=r"bash is .*, locked is 0\.1"):
        build_image(source, lock)
