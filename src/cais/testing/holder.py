"""The first process of a test daemon's pid namespace: it reaps; its death ends all others.

Its own end comes with the test process: killed by it, or when that one dies and standard input,
a pipe from it, closes.
"""

import os
import select
import signal


def main() -> None:
    """Say that the namespaces are ready, then reap until standard input closes."""
    read_fd, write_fd = os.pipe()
    for descriptor in (read_fd, write_fd):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([0, read_fd], [], [])
        if 0 in ready and not os.read(0, 1):
            return
        if read_fd in ready:
            os.read(read_fd, 4096)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
