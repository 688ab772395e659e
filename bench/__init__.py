"""Cais beside dockerd, runc and crun, measured in turns on the same machine in the same run."""
