"""Names to manifests to layers; archives; unpacking; bootstrap."""
