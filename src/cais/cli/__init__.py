"""The ``cais`` command: Docker's commands and flags, as a client of the daemon it starts itself."""
