"""The command `rlkit`: its subcommands, warnings and errors."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from tyro.extras import SubcommandApp

from rlkit.cli import latent, world
from rlkit.cli.check_env import check_env
from rlkit.cli.console import to_stderr
from rlkit.cli.listing import list_
from rlkit.cli.runs import evaluate, plot, record
from rlkit.cli.train import resume, train
from rlkit.cli.words import one_setting_per_flag
from rlkit.names import require_current

app = SubcommandApp()
app.command(train)
app.command(resume)
app.command(name="eval")(evaluate)
app.command(record)
app.command(plot)
app.command(name="check-env")(check_env)
app.command(latent.app, name="latent", help="Train latent models, and evaluate them.")
app.command(world.app, name="world", help="Train world models, and score them.")
app.command(name="list")(list_)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    to_stderr(f"warning: {message}")


def main() -> None:
    """Runs the command line; an error of the user is one message and exit code 2."""
    # A console script does not search the current folder, where a user's modules are. Appended, so
    # that nothing there hides an installed package.
    sys.path.append(os.getcwd())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"rlkit\.")
        warnings.showwarning = _show_warning
    try:
        require_current(sys.argv[1:])
        sys.exit(app.cli(prog="rlkit", args=one_setting_per_flag(sys.argv[1:])))
    except KeyboardInterrupt:
        to_stderr("interrupted")
        sys.exit(130)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if os.environ.get("RLKIT_TRACEBACK"):
            raise
        to_stderr(f"error: {error}\n(RLKIT_TRACEBACK=1 shows the traceback.)")
        sys.exit(2)
