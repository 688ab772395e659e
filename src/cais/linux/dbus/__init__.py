"""A small D-Bus client: method calls, and the signals that answer them.

For the one peer this project has on that bus, systemd; docs/adr/0013 says why it is our own.
"""

from cais.linux.dbus.connection import Connection, DbusError, open_connection
from cais.linux.dbus.messages import Target
from cais.linux.dbus.wire import Variant

__all__ = ["Connection", "DbusError", "Target", "Variant", "open_connection"]
