"""The text form of mounts: ``source:destination[:mode]`` (``-v``), ``container[:mode]``.

A mode is a list of words, at most one of each kind: ``rw ro``, ``z Z`` (SELinux, accepted and
shown), ``nocopy``, a propagation, a consistency (accepted, without meaning here).
"""

import posixpath
from dataclasses import dataclass

from cais.volumes.errors import InvalidMountError
from cais.volumes.local import check_name
from cais.volumes.mountspec import PROPAGATIONS, check_destination

_KINDS = {
    "rw": frozenset({"rw", "ro"}),
    "label": frozenset({"z", "Z"}),
    "copy": frozenset({"nocopy"}),
    "propagation": frozenset(PROPAGATIONS),
    "consistency": frozenset({"consistent", "cached", "delegated", "default"}),
}


@dataclass(frozen=True, slots=True)
class BindSpec:
    """What a ``-v`` argument says; ``source`` is a path or, with ``is_volume``, a name."""

    source: str
    destination: str
    mode: str
    is_volume: bool
    rw: bool
    propagation: str
    no_copy: bool


def parse_bind(text: str) -> BindSpec:
    """Read ``source:destination[:mode]``.

    Raises:
        InvalidMountError: malformed; the text is Docker's.
        InvalidVolumeNameError: the source is neither a path nor a volume name.

    """
    source, destination, mode = _split(text)
    words = _parse_mode(mode)
    is_volume = not source.startswith("/")
    try:
        clean = check_destination(destination, None)
    except InvalidMountError as exc:
        raise InvalidMountError(f"{_invalid(text)}: {exc}") from exc
    if is_volume:
        check_name(source)
    elif "copy" in words:
        raise InvalidMountError(f"invalid mode: {mode}")
    return BindSpec(
        source=source if is_volume else posixpath.normpath(source),
        destination=clean,
        mode=mode,
        is_volume=is_volume,
        rw=words.get("rw") != "ro",
        propagation=words.get("propagation", ""),
        no_copy="copy" in words,
    )


def parse_destination(text: str) -> str:
    """Read the destination of an anonymous volume (``-v /data``).

    Raises:
        InvalidMountError: it is not an absolute path, or is the root.

    """
    if ":" in text or not text:
        raise InvalidMountError(_invalid(text))
    try:
        return check_destination(text, None)
    except InvalidMountError as exc:
        raise InvalidMountError(f"{_invalid(text)}: {exc}") from exc


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """Read ``container[:mode]``; return the container and whether it may be written.

    Raises:
        InvalidMountError: empty, or a mode that says anything but rw, ro, z or Z.

    """
    if not text:
        raise InvalidMountError("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    words = _parse_mode(mode)
    if words.keys() - {"rw", "label"}:
        raise InvalidMountError(f"invalid mode: {mode}")
    return container, words.get("rw") != "ro"


def _split(text: str) -> tuple[str, str, str]:
    match text.split(":"):
        case [source, destination] if source and destination:
            if _is_mode(destination):
                raise InvalidMountError(_invalid(text))  # a volume of the image cannot have a mode
            return source, destination, ""
        case [source, destination, mode] if source and destination:
            return source, destination, mode
    raise InvalidMountError(_invalid(text))


def _parse_mode(mode: str) -> dict[str, str]:
    """Return the words of a mode by kind."""
    words: dict[str, str] = {}
    for word in mode.split(",") if mode else ():
        kind = next((kind for kind, known in _KINDS.items() if word in known), None)
        if kind is None or kind in words:
            raise InvalidMountError(f"invalid mode: {mode}")
        words[kind] = word
    return words


def _is_mode(text: str) -> bool:
    return all(any(word in known for known in _KINDS.values()) for word in text.split(","))


def _invalid(text: str) -> str:
    return f"invalid volume specification: '{text}'"
