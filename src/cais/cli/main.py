"""Entry point of ``cais``. Imports as little as the command needs: start-up is what users feel."""

import sys

from cais.spec.version import VERSION


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:] in (["--version"], ["-v"]):
        print(f"cais version {VERSION}")
        return
    from cais.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
