"""The kernel: mounts, namespaces, cgroups, capabilities, seccomp, terminals, netlink."""
