"""Layers to root filesystems: a Snapshotter gives mounts and never mounts."""
