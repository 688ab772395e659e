"""The first process of a test daemon's pid namespace: it reaps; its death ends all others."""

import os
import signal


def main() -> None:
    """Say that the namespaces are ready, then reap until killed."""
    os.write(1, b"ready\n")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 3600)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
