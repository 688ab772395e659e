"""Cais: a container platform in Python."""
