"""The warm parent of every container: server, stdio pump, log writer, and its client."""
