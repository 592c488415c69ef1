"""Shared by the commands: types of options, environments by their ids, and output."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json as json_
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from rlkit.trust import trusted_files

if TYPE_CHECKING:
    from rlkit.vec.vec_env import MakeEnv

Json = Annotated[bool, FlagCreatePairsOff]
Trust = Annotated[bool, FlagCreatePairsOff]
Number = Annotated[int | None, arg(metavar="N")]
Folder = Annotated[Path | None, arg(metavar="FOLDER")]
Run = Annotated[Path, Positional, arg(metavar="RUN")]
Id = Annotated[str | None, arg(metavar="ID")]
Name = Annotated[str | None, arg(metavar="NAME")]
Settings = Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")]


@dataclass(frozen=True)
class FitOptions:
    """How a model is fitted to data."""

    steps: int = 5_000
    """Gradient steps."""
    batch_size: int = 128
    """Frames, records or windows per step."""
    learning_rate: float = 1e-3
    """Step size of Adam."""


Fit = Annotated[FitOptions, OmitArgPrefixes]


def trusting(command: Callable[..., int]) -> Callable[..., int]:
    """A command whose parameter `trust` holds for all files that it reads."""

    @functools.wraps(command)
    def trusted(*args: Any, **kwargs: Any) -> int:
        given = inspect.signature(command).bind(*args, **kwargs).arguments
        with trusted_files(given.get("trust", False)):
            return command(*args, **kwargs)

    return trusted


def env_maker() -> MakeEnv:
    """The function that builds an environment from its id."""
    from rlkit.cli.quiet import quiet_make
    from rlkit.envs.make import prefer_egl

    prefer_egl()  # before any environment is imported
    return quiet_make


@contextlib.contextmanager
def quiet_output(json: bool) -> Iterator[None]:
    """Keeps standard output for the one object of `--json`; what environments print is moved."""
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        yield


def print_json(content: dict[str, Any]) -> None:
    """Prints one object on one line."""
    print(json_.dumps(content, allow_nan=False))


def to_stderr(text: str) -> None:
    """Prints a line on standard error."""
    print(text, file=sys.stderr)


def print_report(report: dict[str, Any], text: str, json: bool) -> int:
    """Prints a report and where its figures are, as text or as one JSON object; exit code 0."""
    if json:
        print_json(report)
    else:
        print(f"{text}\nsee {report['folder']}")
        print(f"watch it with: tensorboard --logdir {report['folder']}")
    return 0


def print_training(outcome: dict[str, Any], json: bool, done: list[str], stopped: str) -> int:
    """Prints how a training ended, and returns the exit code.

    Args:
        outcome: What the training returned; its `stopped` names the signal that ended it early.
        json: Whether standard output is for the outcome as one JSON object.
        done: Lines to print about a training that is complete.
        stopped: Line to print about one that was stopped.
    """
    if json:
        print_json(outcome)
    is_stopped = outcome["stopped"] is not None
    for line in [stopped] if is_stopped else done:
        print(line, file=sys.stderr if json else sys.stdout)
    return 128 + signal.Signals[outcome["stopped"]] if is_stopped else 0


def describe(outcome: dict[str, Any]) -> str:
    """An evaluation in one line: success rate and return."""
    return ", ".join(evaluation_lines(outcome))


def evaluation_lines(outcome: dict[str, Any]) -> list[str]:
    """An evaluation in lines for a narrow terminal."""
    if not outcome["episodes"]:
        return ["not evaluated"]
    text = f"return {outcome['return_mean']:.2f} over {outcome['episodes']} held-out episodes"
    if outcome["success_rate"] is None:
        return [text]
    low, high = outcome["success_ci95"]
    rate = outcome["success_rate"]
    return [f"success {rate:.1%} (95 % interval {low:.1%} to {high:.1%})", text]
