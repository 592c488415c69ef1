"""Runs the command line by `python -m rlkit`."""

from rlkit.cli.main import main

if __name__ == "__main__":
    main()
