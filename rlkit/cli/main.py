"""The command `rlkit`: its subcommands, warnings and errors."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import tyro
from tyro.extras import SubcommandApp

from rlkit.cli import latent, world
from rlkit.cli.check_env import check_env
from rlkit.cli.completion import candidates, completion
from rlkit.cli.console import to_stderr
from rlkit.cli.doctor import doctor
from rlkit.cli.listing import list_
from rlkit.cli.new import new
from rlkit.cli.runs import evaluate, plot, record
from rlkit.cli.train import resume, train
from rlkit.cli.words import Command, Commands, imports_own_code, resolved
from rlkit.names import require_current
from rlkit.trust import UntrustedError
from rlkit.version import VERSION

COMMANDS: Commands = {
    "train": train,
    "resume": resume,
    "eval": evaluate,
    "record": record,
    "plot": plot,
    "check-env": check_env,
    "latent": latent.COMMANDS,
    "world": world.COMMANDS,
    "new": new,
    "list": list_,
    "doctor": doctor,
    "completion": completion,
}
_GROUP_HELP = {
    "latent": "Train latent models, and evaluate them.",
    "world": "Train world models, and score them.",
}
_DESCRIPTION = (
    "Goal-conditioned, recurrent and model-based reinforcement learning. RLKIT_TRACEBACK=1 shows "
    "the traceback of an error."
)
Call = Callable[[], int]


def main() -> None:
    """Runs the command line; an error of the user is one line and exit code 2."""
    if imports_own_code(sys.argv[1:]):
        # A console script does not search the current folder, where a user's modules are. Appended,
        # so that nothing there hides an installed package. Files alone do not bring it about.
        sys.path.append(os.getcwd())
    _silence_others()
    try:
        sys.exit(parsed(sys.argv[1:])())
    except KeyboardInterrupt:
        to_stderr("interrupted")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("RLKIT_TRACEBACK"):
            raise
        if not _is_of_user(error):
            to_stderr(f"error: {_described(error)}")
            sys.exit(1)
        is_untrusted = isinstance(error, UntrustedError)
        hint = f": {shlex.join(['rlkit', *sys.argv[1:], '--trust'])}" if is_untrusted else ""
        to_stderr(f"error: {error}{hint}")
        sys.exit(2)


def _is_of_user(error: Exception) -> bool:
    """Whether it is a mistake in what the user asked for, which ends with exit code 2."""
    from rlkit.goals.failure import EnvironmentFailed

    is_wrong = isinstance(error, ValueError | OSError | ImportError)
    return is_wrong and not isinstance(error, EnvironmentFailed)


def _described(error: Exception) -> str:
    """One line about an error during the work: of an environment, of the training, or a defect."""
    from rlkit.goals.failure import EnvironmentFailed

    if isinstance(error, EnvironmentFailed | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            f"out of memory: {error or 'the system gave no more'}. Lower agent_options.buffer_size "
            f"or batch_size, or keep images on disk with agent_options.replay.directory"
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(last.filename)}:{last.lineno}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({place}; RLKIT_TRACEBACK=1 shows the traceback)"


def parsed(words: list[str]) -> Call:
    """The call that a command line asks for.

    Raises:
        ValueError: If a word is wrong.
        SystemExit: After help was printed.
    """
    if words[:1] in (["--version"], ["-V"]):
        return functools.partial(_print_version)
    if words[:1] == ["--complete"]:
        return functools.partial(_print_candidates, words[1:])
    require_current(words)
    program, command, rest = resolved(words, COMMANDS)
    if isinstance(command, Mapping):  # a group of commands, of which none is named
        _help_of(command).cli(prog=program, description=_DESCRIPTION, args=["--help"])
        raise AssertionError("help exits")
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            call: Call = tyro.cli(_later(command), prog=program, args=rest)
    except SystemExit as ended:
        if ended.code:  # `resolved` has found most mistakes; this is what it does not look for
            raise ValueError(_one_line(stderr.getvalue())) from None
        raise
    return call


def _print_version() -> int:
    print(f"rlkit-suite {VERSION}")
    return 0


def _print_candidates(words: list[str]) -> int:
    print(*candidates(words, COMMANDS), sep="\n")
    return 0


def _help_of(commands: Commands) -> SubcommandApp:
    """The parser of all commands, for help; single commands are parsed alone."""
    app = SubcommandApp()
    for name, command in commands.items():
        if isinstance(command, Mapping):
            app.command(_help_of(command), name=name, help=_GROUP_HELP[name])
        else:
            app.command(name=name)(command)
    return app


def _later(command: Command) -> Callable[..., Call]:
    """The command with its arguments bound, so that parsing has ended before it runs."""

    @functools.wraps(command)
    def bound(*args: Any, **kwargs: Any) -> Call:
        return functools.partial(command, *args, **kwargs)

    return bound


def _one_line(box: str) -> str:
    """What the parser printed in a box, without the box and the advice at its end."""
    lines = [line.strip("│╭╰╮╯─ ") for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    return text.partition("For full helptext")[0].strip()


def _silence_others() -> None:
    """Leaves out banners and warnings of other packages, here and in child processes."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        # pygame otherwise complains. Not "dummy", with which highway-env draws nothing.
        os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")
    if not sys.warnoptions:  # `python -W default -m rlkit` shows them
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"rlkit\.")
        warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    to_stderr(f"warning: {message}")
