"""Blobs by digest: ingest, verify, commit, garbage collection."""
