"""The distribution protocol: the client's side of registries.

``origin`` (who is spoken to), ``transport`` (HTTP with deadlines, redirects that keep credentials
home, retries), ``auth`` (challenges and tokens), ``repository`` (manifests, blobs, tags).

Spec: OCI distribution-spec 1.1.
"""
