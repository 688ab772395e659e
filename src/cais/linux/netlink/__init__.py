"""Links, addresses and routes through NETLINK_ROUTE, without a library.

``messages`` packs and unpacks; ``route`` owns a socket and speaks of bridges, veth pairs,
addresses and routes. Why this is ours: docs/adr/0002-own-rtnetlink.md.
"""
