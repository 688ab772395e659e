"""The kernel: mounts, namespaces, cgroups, capabilities, seccomp, terminals, pidfds, netlink, nftables."""
