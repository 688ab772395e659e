"""The state of a container as the specification words it, for hooks and seccomp agents.

Spec: OCI runtime-spec 1.2, runtime.md "State".
"""

from __future__ import annotations

from cais.spec.runtime import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.spec.runtime import Config, State


class StateFacts:
    """What stays the same in a container's state for its life."""

    __slots__ = ("_annotations", "bundle", "id")

    def __init__(self, container_id: str, bundle: str, config: Config) -> None:
        self.id = container_id
        self.bundle = bundle
        self._annotations: Mapping[str, str] = config.get("annotations", {})

    def document(self, status: str, pid: int) -> State:
        """Return the state; one without a process (``pid`` 0) has no ``pid``."""
        document: State = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,  # type: ignore[typeddict-item] # one of the specification's four
            "bundle": self.bundle,
        }
        if pid:
            document["pid"] = pid
        if self._annotations:
            document["annotations"] = dict(self._annotations)
        return document
