"""Dockerfile text to instructions to graph to solved layers."""
