"""Control groups: find the host's hierarchies, and limit, freeze, kill and count processes.

One vocabulary for both versions. ``detect()`` reads what the host mounts, ``open_cgroup`` names a
group in it, and the ``Cgroup`` it returns behaves alike on v1 (a directory per controller) and v2
(one directory). Nothing here assumes a mount point.

A container joins its groups itself: ``join_fds()`` are opened by the parent and the child ``join``s
by them. On v1 that is the ``tasks`` file, because moving only the calling thread spares
the kernel's global lock (Linux 5.6), whose RCU grace period costs a start 8 to 20 ms.

    hierarchy = detect()
    group = open_cgroup(hierarchy, "/cais/<id>")
    group.create({"memory": {"limit": 64 << 20}})
    join(group.join_fds())               # the latter in the parent, the former in the child
    group.kill_all(timeout_s=5)
    group.remove()

Spec: kernel Documentation/admin-guide/cgroup-v1/*.rst, cgroup-v2.rst; OCI runtime-spec 1.2
config-linux.md "Control groups".
"""

from cais.linux.cgroups.detect import Hierarchy, detect, parse_hierarchy
from cais.linux.cgroups.files import CgroupError, UnsupportedLimitError
from cais.linux.cgroups.group import Cgroup, join, open_cgroup
from cais.linux.cgroups.paths import clean_path, expand_slice, is_systemd_path

__all__ = [
    "Cgroup",
    "CgroupError",
    "Hierarchy",
    "UnsupportedLimitError",
    "clean_path",
    "detect",
    "expand_slice",
    "is_systemd_path",
    "join",
    "open_cgroup",
    "parse_hierarchy",
]
