"""Bridges, address pools, endpoints, the files that name them inside a container."""
