"""Progress of a training: a bar on a terminal, a few lines of text elsewhere."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
)

from rlkit.experiment.evaluate import EvaluationResult
from rlkit.experiment.recipe import Recipe

_LINES = 10  # plain lines per training
_REFRESH = 0.1  # seconds between updates of the bar: rounds of training may be shorter


class ProgressReport:
    """Reports training on standard error.

    Args:
        total: Environment steps at the end.
        start: Environment steps at the beginning.
    """

    def __init__(self, total: int, start: int = 0) -> None:
        self._total, self._start, self._step = total, start, start
        self._began = self._drawn = time.monotonic()
        self._next_line = start + max(1, (total - start) // _LINES)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),  # takes what the others leave of a narrow terminal
                TaskProgressColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[pace]}"),
                console=Console(stderr=True, highlight=False, soft_wrap=True),
                expand=True,
            )
            self._task = self._bar.add_task("training", total=total, completed=start, pace="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step)
            self._bar.stop()

    def update(self, step: int) -> None:
        """Reports that training has reached a step."""
        self._step = step
        if self._bar is not None:
            now = time.monotonic()
            if now - self._drawn >= _REFRESH:
                self._drawn = now
                left = timedelta(seconds=round((self._total - step) / max(1e-9, self._speed())))
                pace = f"{self._speed():,.0f}/s, {left} left"
                self._bar.update(self._task, completed=step, pace=pace)
        elif step >= self._next_line:
            self._next_line = step + max(1, (self._total - self._start) // _LINES)
            self.print(f"step {step:,} of {self._total:,}, {self._speed():,.0f} steps/s")

    def announce(self, recipe: Recipe, path: Path, device: object) -> None:
        """Prints what is about to be trained, where, and how to watch it."""
        several = f", {recipe.num_envs} environments" if recipe.num_envs > 1 else ""
        way = f"from step {self._start:,} to {self._total:,}" if self._start else f"{self._total:,}"
        for line in (
            recipe.description,
            f"{recipe.agent} on {recipe.env}: {way} steps{several}, seed {recipe.seed}, {device}",
            f"run folder: {path}",
            f"curves: tensorboard --logdir {shlex.quote(str(path))}",
            "Ctrl-C saves and stops.",
        ):
            if line:
                self.print(line)

    def report(self, result: EvaluationResult) -> None:
        """Prints the result of an evaluation."""
        facts = result.summary()
        text = f"return {facts['return_mean']:.2f}"
        if facts["success_rate"] is None:
            text += f" over {facts['episodes']} episodes"
        else:  # a line of at most 80 columns; the interval tells how many episodes there were
            low, high = facts["success_ci95"]
            rate = f"success {facts['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
            text = f"{rate}, {text}"
        self.print(f"step {self._step:,}: {text}")

    def phase(self, text: str) -> None:
        """Says what is done instead of training, such as the last evaluation."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, description=text, pace="")

    def print(self, text: str) -> None:
        """Prints a line."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _speed(self) -> float:
        return (self._step - self._start) / max(1e-9, time.monotonic() - self._began)
