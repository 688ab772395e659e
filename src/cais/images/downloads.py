"""Blobs on their way from registries: each once, however many pulls want it.

A download belongs to those who wait for it: it ends when the last one leaves, and a pull that
comes meanwhile joins. What breaks off goes on where it stopped, in the same ingest, whose hash
covers every byte; nothing is a blob before its size and digest are right.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cais.content.store import Blob
from cais.errors import DataLossError, InternalError
from cais.images.retries import count_down
from cais.registry.cancel import Cancel
from cais.registry.errors import RegistryUnreachableError
from cais.registry.transport import MAX_ATTEMPTS
from cais.spec.image import LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from cais.content.leases import Lease
    from cais.content.store import ContentStore, Ingest
    from cais.images.transfers import Line
    from cais.registry.repository import Repository
    from cais.spec.digest import Digest

DEFAULT_PARALLEL = 3
"""Docker's max-concurrent-downloads."""

_RETRY_PAUSE_S = 1.0
_POLL_S = 0.1


class Downloads:
    """The downloads under way of one content store. Thread-safe."""

    def __init__(self, content: ContentStore, parallel: int = DEFAULT_PARALLEL) -> None:
        self._content = content
        self._slots = threading.BoundedSemaphore(parallel)
        self._lock = threading.Lock()
        self._running: dict[Digest, _Download] = {}

    def join(
        self,
        digest: Digest,
        size: int,
        source: Repository,
        lease: Lease,
        line: Line,
        *,
        is_document: bool = False,
    ) -> Wait:
        """Begin a download, or join the one that runs; use the result with ``with``.

        A blob that is stored is not downloaded: the wait is over at once. A damaged one is, and
        what comes takes its place.

        Args:
            digest: of the blob; protected by ``lease`` from now on.
            size: what its manifest says, in bytes.
            source: where it is; asked with a ``Cancel`` of the download's own.
            lease: of the pull.
            line: told how far it is.
            is_document: small, so that a stored one is verified; of others only the size is.

        """
        lease.add(digest)
        with self._lock:
            download = self._running.get(digest)
            if download is None or download.is_abandoned:
                # Asked only now: one that has just ended is not among those that run any more.
                if self._content.holds(digest, size) and (
                    not is_document or self._content.holds_document(digest, LIMIT_BYTES)
                ):
                    line.say("Already exists")
                    return Wait(None, line, Blob(digest, size))
                line.say("Pulling fs layer")
                download = _Download(digest, size, self._content, self._slots, self._ended)
                self._running[digest] = download
                download.add(line)
                download.start(source)
            else:
                line.say("Pulling fs layer")
                download.add(line)
        return Wait(download, line)

    def _ended(self, download: _Download) -> None:
        with self._lock:
            if self._running.get(download.digest) is download:
                del self._running[download.digest]


class Wait:
    """One pull's share in a download, given up at the end of its ``with`` block."""

    def __init__(self, download: _Download | None, line: Line, blob: Blob | None = None) -> None:
        self._download = download
        self._line = line
        self._blob = blob

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._download is not None:
            self._download.leave(self._line)

    def blob(self, cancel: Cancel) -> Blob:
        """Return the blob once it is stored.

        Raises:
            CaisError: whatever ended the download.
            DeadlineError: ``cancel`` was set.

        """
        if self._download is not None:
            return self._download.result(cancel)
        assert self._blob is not None
        return self._blob


class _Download:
    """One blob's download, in a thread of its own."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        content: ContentStore,
        slots: threading.BoundedSemaphore,
        ended: Callable[[_Download], None],
    ) -> None:
        self.digest = digest
        self._size = size
        self._content = content
        self._slots = slots
        self._ended = ended
        self._cancel = Cancel()
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._done = threading.Event()
        self._blob: Blob | None = None
        self._error: Exception | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether everybody has left, so that it will not bring anything."""
        return self._cancel.is_set

    def start(self, source: Repository) -> None:
        """Begin, or queue; who came first has a slot first."""
        has_slot = self._slots.acquire(blocking=False)
        if not has_slot:
            self._tell("Waiting")
        work = (source.with_cancel(self._cancel), has_slot)
        threading.Thread(target=self._run, args=work, name="download", daemon=True).start()

    def add(self, line: Line) -> None:
        with self._lock:
            self._lines.append(line)

    def leave(self, line: Line) -> None:
        """Take a line away; with the last one the download ends.

        Blocks: then until it has, so that nothing arrives after whoever cleans up.
        """
        with self._lock:
            if line in self._lines:
                self._lines.remove(line)
            is_last = not self._lines
        if is_last and not self._done.is_set():
            self._cancel.set()
            self._done.wait()

    def result(self, cancel: Cancel) -> Blob:
        cancel.wait_for(self._done)
        if self._error is not None:
            raise self._error
        if self._blob is None:
            raise InternalError(f"the download of {self.digest} ended without a result")
        return self._blob

    def _run(self, source: Repository, has_slot: bool) -> None:  # noqa: FBT001 - of ``start``
        try:
            with self._slot(is_taken=has_slot), self._content.leases.open() as lease:
                lease.add(self.digest)
                self._blob = self._fetch(source, lease)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._error = error
        finally:
            self._done.set()
            self._ended(self)

    @contextlib.contextmanager
    def _slot(self, *, is_taken: bool) -> Iterator[None]:
        while not (is_taken or self._slots.acquire(timeout=_POLL_S)):
            self._cancel.check()
        try:
            self._cancel.check()
            yield
        finally:
            self._slots.release()

    def _fetch(self, source: Repository, lease: Lease) -> Blob:
        with self._content.open_ingest() as ingest:
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    self._receive(source, ingest)
                except RegistryUnreachableError:
                    if attempt == MAX_ATTEMPTS:
                        raise
                    count_down(_RETRY_PAUSE_S * attempt, self._cancel, self._tell)
                    continue
                break
            self._tell("Verifying Checksum")
            blob = ingest.commit(lease, self.digest)
        self._tell("Download complete")
        return blob

    def _receive(self, source: Repository, ingest: Ingest) -> None:
        """Append what is missing. DataLossError: more or less than the manifest says."""
        with source.open_blob(self.digest, ingest.size_bytes) as (position, pieces):
            if position != ingest.size_bytes:
                ingest.restart()
            for piece in pieces:
                ingest.write(piece)
                if ingest.size_bytes > self._size:
                    raise DataLossError(f"blob {self.digest}: longer than {self._size} bytes")
                self._count(ingest.size_bytes)
        if ingest.size_bytes != self._size:
            raise DataLossError(
                f"blob {self.digest}: {ingest.size_bytes} bytes, the manifest says {self._size}"
            )

    def _tell(self, status: str) -> None:
        for line in self._heard_by():
            line.say(status)

    def _count(self, current: int) -> None:
        for line in self._heard_by():
            line.count("Downloading", current, self._size)

    def _heard_by(self) -> tuple[Line, ...]:
        with self._lock:
            return tuple(self._lines)
