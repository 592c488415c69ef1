"""Repeats the exception of an environment: `python -m rlkit.cli.repeat_failure FILE [--trust]`."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Gives the environment the actions that are in the file; its exception has its traceback."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, help="failures/step-N.npz in the folder of a run")
    parser.add_argument("--trust", action="store_true", help="let the file name any environment")
    options = parser.parse_args()
    from rlkit.cli.console import env_maker
    from rlkit.experiment.failure import repeat_failure

    steps = repeat_failure(options.file, env_maker(), trust=options.trust)
    print(f"{steps} steps were taken, and nothing was raised")


if __name__ == "__main__":
    main()
