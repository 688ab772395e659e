"""Unpacking in a process that can reach nothing but the layer it unpacks (adr/0016).

    caisd ──SOCK_SEQPACKET "control"──▶ warden     one at a time, from the first operation that
                                          │        unpacks to the end of the last one
                                          │ clone3 (new namespaces)
    caisd ◀─SOCK_SEQPACKET "jobs"──────▶ worker    several; each takes layer after layer

``pool`` starts the warden and lends workers, ``worker_handle`` is the daemon's end of one worker's
line, ``messages`` what is said on it; ``warden`` is the program, ``confinement`` what it takes
from a worker before the first byte, ``worker`` what is left.
"""
