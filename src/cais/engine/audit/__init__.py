"""``cais system check``: whether a data root is what its databases say, without a daemon.

Plain files are read: databases read-only, blobs to their last byte. A daemon may be at work on the
data root; then what belongs to nobody is not looked for, because it may be on its way in. Repairing
takes the daemon's own lock. ``audit`` runs the checks, a module each, in the order in which one
repair is another check's ground; ``data_root`` is what all of them read.
"""
