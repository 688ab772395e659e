"""A small client of the Engine API."""
