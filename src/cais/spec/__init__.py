"""Pure values and parsers: OCI documents, references, digests, platforms, API bodies."""
