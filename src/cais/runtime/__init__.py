"""The OCI runtime: create, start, exec, kill, delete, and the child's own steps."""
