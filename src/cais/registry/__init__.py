"""The distribution protocol: client and server."""
