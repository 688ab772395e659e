"""A registry: the distribution protocol's other side, over a content store.

``serving`` (a server's life, and one in a thread), ``application`` (a request to its answer),
``routes``, ``blobs``, ``uploading``, ``manifests``, ``listings`` (the answers), ``shelf`` (where
content comes from), ``storage`` (blobs and rows together), ``catalog`` (rows), ``uploads``
(sessions), ``documents`` (manifests as read), ``passwords``, ``upstream`` (the pull-through cache).

Spec: OCI distribution-spec 1.1; which test performs which requirement stands in
``docs/distribution-conformance.md``.
"""
