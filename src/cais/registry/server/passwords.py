"""Who may use the registry: an htpasswd file with bcrypt hashes, as docker-registry has it.

The file is read again when it changed. A password that was right once is remembered, keyed by a
secret of this process, so that a request costs no bcrypt; a wrong one costs as much as a right one,
whether the user exists or not.

Spec: RFC 7617; htpasswd(1) of Apache ("bcrypt").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.registry.server.errors import RefusalError

if TYPE_CHECKING:
    from pathlib import Path

REALM = "cais"
_is_line = re.compile(r"([^:\s]{1,255}):(\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53})").fullmatch
_NOBODY = "$2b$10$abcdefghijklmnopqrstuuDlLDVIVNK6uErnZgDbHEMjZpRYkkIIe"
_REMEMBERED = 1024
_PASSWORD_BYTES = 72
"""All that bcrypt looks at; longer ones are refused rather than cut."""


class Passwords:
    """The users of one file."""

    def __init__(self, path: Path) -> None:
        """Read the file. InvalidArgumentError: it cannot be read, or has other hashes."""
        self._path = path
        self._secret = os.urandom(32)
        self._right: dict[bytes, str] = {}
        self._hashes: dict[str, str] = {}
        self._version: tuple[int, ...] = ()
        self._refresh()

    def is_known(self, authorization: str) -> bool:
        """Whether it was right before, and the user still has that password. Never blocks."""
        user, password = _parse(authorization)
        remembered = self._right.get(self._key(user, password))
        return remembered is not None and remembered == self._hashes.get(user)

    def check(self, authorization: str) -> None:
        """Verify an ``Authorization``.

        Raises:
            RefusalError: UNAUTHORIZED.

        Blocks: for as long as bcrypt takes, which is its purpose.

        """
        import bcrypt

        self._refresh()
        user, password = _parse(authorization)
        expected = self._hashes.get(user, _NOBODY)
        if not 0 < len(password) <= _PASSWORD_BYTES:
            raise unauthorized("authentication required")
        if not bcrypt.checkpw(password, expected.encode()) or user not in self._hashes:
            raise unauthorized("wrong user name or password")
        if len(self._right) >= _REMEMBERED:
            self._right.clear()
        self._right[self._key(user, password)] = expected

    def _key(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._secret, user.encode() + b"\0" + password, hashlib.sha256)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._version:
                self._hashes = _read(self._path)
                self._version = version
        except OSError as exc:
            raise InvalidArgumentError(f"{self._path}: {exc.strerror}") from exc


def unauthorized(message: str) -> RefusalError:
    """Return the error of a request without (right) credentials."""
    challenge = f'Basic realm="{REALM}", charset="UTF-8"'
    return RefusalError("UNAUTHORIZED", message, headers={"WWW-Authenticate": challenge})


def _parse(authorization: str) -> tuple[str, bytes]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
            if colon:
                return user.decode(), password
        except (binascii.Error, UnicodeDecodeError):
            pass
    raise unauthorized("authentication required")


def _read(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        entry = _is_line(text)
        if entry is None:
            raise InvalidArgumentError(f"{path}: line {number}: not a user with a bcrypt hash")
        found[entry[1]] = entry[2]
    return found
