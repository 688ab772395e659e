"""HTTP/1.1 for servers: sockets to requests, answers to sockets. Knows nobody's API.

``server`` (accepts), ``connection`` (one client's conversation), ``messages`` (what is answered),
``tls`` (in front of a connection), ``query``, ``bodies``, ``errors``.
"""
