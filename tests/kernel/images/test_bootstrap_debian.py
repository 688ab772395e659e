"""Debian images made by mmdebstrap: only of signed packages, and always the same."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cais.errors import ConflictError, UnavailableError
from cais.images.bootstrap import debian
from cais.images.bootstrap.debian import DISTRIBUTIONS, Source, build_image, find_source
from cais.images.bootstrap.lock import Lock, load_lock, save_lock

KEYRING = DISTRIBUTIONS["debian"].keyring
pytestmark = pytest.mark.timeout(900)  # a download and an installation, twice


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


@pytest.fixture(scope="module")
def source() -> Source:
    """The smallest system that dpkg has installed."""
    return replace(find_source("debian:bookworm"), variant="essential")


@pytest.fixture(scope="module")
def built(source: Source) -> tuple[str, Lock]:
    """The digest of a system built without a lock, and what it was made of."""
    return build(source)


def build(source: Source, lock: Lock | None = None) -> tuple[str, Lock]:
    archive, made = build_image(source, lock)
    with archive:
        return hashlib.file_digest(archive, "sha256").hexdigest(), made  # type: ignore[arg-type]


def test_the_same_packages_give_the_same_image(
    source: Source, built: tuple[str, Lock], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lock of another build: from another directory, at another time."""
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    path = os.fspath(tmp_path / "lock")
    save_lock(built[1], path)
    assert build(source, load_lock(path)) == built
    assert os.listdir(tmp_path) == ["lock"]


def test_packages_that_are_gone_are_named(
    source: Source, built: tuple[str, Lock], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = built
    older = tuple(
        replace(package, version="0.1") if package.name == "bash" else package
        for package in made.packages
    )
    monkeypatch.setattr(debian, "_install", lambda *_: None)  # it has been, by ``built``
    monkeypatch.setattr(debian, "_facts", lambda *_: made)
    with pytest.raises(ConflictError, match=r"bash is .*, locked is 0\.1"):
        build_image(source, replace(made, packages=older))
