"""Routing between interfaces: turned on for the containers, remembered as ours.

A host that did not route before shall not start to route for others because of us; the packet
filter needs to know, also after a restart of the daemon. A marker file in the exec root, which a
reboot empties as it resets the setting, says that it was us.
"""

from pathlib import Path

_SETTING = Path("/proc/sys/net/ipv4/ip_forward")


class Forwarding:
    """The IPv4 forwarding switch of this network namespace."""

    def __init__(self, marker: Path) -> None:
        """Args: marker exists while the switch is on because of us."""
        self._marker = marker

    def note_state(self) -> bool:
        """Return whether forwarding is, or is about to be, on only because of us."""
        if _SETTING.read_text().strip() == "0":
            self._marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._marker.touch(mode=0o600)
        return self._marker.exists()

    def enable(self) -> None:
        """Turn it on. OSError when /proc/sys cannot be written."""
        if _SETTING.read_text().strip() == "0":
            _SETTING.write_text("1")
