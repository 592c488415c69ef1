"""Progress of a training: a bar on a terminal, a few lines of text elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rlkit.experiment.evaluate import EvaluationResult

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
                TextColumn("[bold]training"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps, {task.fields[speed]}/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=start, speed="-")

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
                self._bar.update(self._task, completed=step, speed=f"{self._speed():,.0f}")
        elif step >= self._next_line:
            self._next_line = step + max(1, (self._total - self._start) // _LINES)
            self.print(f"step {step:,} of {self._total:,}, {self._speed():,.0f} steps/s")

    def report(self, result: EvaluationResult) -> None:
        """Prints the result of an evaluation."""
        facts = result.summary()
        text = f"step {self._step:,}: return {facts['return_mean']:.2f}"
        if facts["success_rate"] is not None:
            low, high = facts["success_ci95"]
            text += f", success {facts['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
        self.print(f"{text} over {facts['episodes']} held-out episodes")

    def print(self, text: str) -> None:
        """Prints a line."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _speed(self) -> float:
        return (self._step - self._start) / max(1e-9, time.monotonic() - self._began)
