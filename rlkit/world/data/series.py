"""Series of measurements from CSV files: columns to forecast, and known ones that drive them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.world.data.windows import Episodes

MISSING = {"", "nan", "na", "n/a", "null", "none"}
GAP = 1.5  # usual steps; a pause that is longer is a gap


@dataclass(frozen=True)
class Series:
    """What a file held.

    Attributes:
        episodes: A piece between gaps each. Observations are the targets; action t is the drivers
            in row t, in force until row t + 1.
        targets: Names of the observations' columns.
        drivers: Names of the actions' columns.
        step: Time between rows in the time column's unit, seconds for dates; None without times.
        rows: Rows in the file.
        missing: Rows left out because a value was missing.
        short: Rows left out because the piece between two gaps was too short.
    """

    episodes: Episodes
    targets: tuple[str, ...]
    drivers: tuple[str, ...]
    step: float | None
    rows: int
    missing: int
    short: int


def read_csv(
    path: Path | str,
    targets: Sequence[str],
    drivers: Sequence[str] = (),
    *,
    time: str | None = None,
    shortest: int = 2,
    tolerance: float = 0.01,
    delimiter: str = ",",
) -> Series:
    """Reads a multivariate series in equal steps, with names in its first row.

    A row in which a target or driver is missing (empty, NaN, NA, null) is left out and parts the
    series, as does a pause in the times; nothing is filled in. Other columns are not read. A driver
    may be constant, a target may not: all its forecasts would score alike.

    Args:
        path: UTF-8, with or without a byte order mark.
        targets: Columns to forecast.
        drivers: Columns that are known ahead, such as settings, weather forecasts, or the calendar.
        time: Column of numbers, or ISO dates with dashes; without it, rows are taken to be equally
            spaced. Dates without a zone are read as UTC.
        shortest: Rows that a piece between gaps must have to be kept, two or more.
        tolerance: By what share a step may differ from the median step.
        delimiter: Between values.

    Raises:
        ValueError: If a column is unknown or named twice, a row has too many or too few values, a
            value is no finite number, times do not rise in equal steps, a target is constant, or
            no piece is long enough. Row, line and column are named.
    """
    names = [*targets, *drivers]
    if not targets or len(set(names)) < len(names) or time in names:
        raise ValueError(
            f"give one target or more, and each column once, got targets {list(targets)}, drivers "
            f"{list(drivers)}, time {time}"
        )
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            table = _Table.read(csv.reader(file, delimiter=delimiter), names, time, Path(path))
        except csv.Error as error:
            raise ValueError(f"{path} is no table of comma-separated values: {error}") from error
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(table.values).all(1))
    step, pause = table.steps(tolerance)
    kept = np.flatnonzero(whole)
    if len(kept) == 0:
        raise ValueError(f"{path} has {len(whole)} rows, none of them with all of {names}")
    apart = (np.diff(kept) > 1) | pause[kept[1:] - 1]
    pieces = np.split(kept, np.flatnonzero(apart) + 1)
    long = [piece for piece in pieces if len(piece) >= max(shortest, 2)]
    if not long:
        raise ValueError(
            f"{path} has no {max(shortest, 2)} rows in a row without a gap, the longest piece has "
            f"{max(map(len, pieces))} of {len(whole)} rows"
        )
    used = table.values[np.concatenate(long)]
    for column, name in enumerate(targets):
        if np.ptp(used[:, column]) == 0:
            raise ValueError(f"target {name!r} is {used[0, column]:g} in every row; leave it out")
    width = len(targets)
    actions = np.concatenate([table.values[piece[:-1], width:] for piece in long])
    return Series(
        episodes=Episodes(used[:, :width], actions, [len(piece) - 1 for piece in long]),
        targets=tuple(targets),
        drivers=tuple(drivers),
        step=step,
        rows=len(whole),
        missing=len(whole) - len(kept),
        short=len(kept) - len(used),
    )


@dataclass(frozen=True)
class _Table:
    """Columns of a file, `(N, K)`, NaN where missing, with each row's time and line."""

    values: NDArray[np.float64]
    times: NDArray[np.float64]
    lines: NDArray[np.int64]
    time: str | None

    @classmethod
    def read(cls, rows: Any, names: Sequence[str], time: str | None, path: Path) -> _Table:
        header = [name.strip() for name in next(rows, [])]
        wanted = [*names] if time is None else [*names, time]
        for name in wanted:
            if header.count(name) != 1:
                raise ValueError(
                    f"{path} has {header.count(name)} columns named {name!r}, needed is one; its "
                    f"first row is {header}"
                )
        places = [header.index(name) for name in names]
        clock = None if time is None else header.index(time)
        flat: list[float] = []
        times: list[float] = []
        lines: list[int] = []
        for row in rows:
            if not row:
                continue  # a blank line, often the last
            where = f"{path}, line {rows.line_num}"
            if len(row) != len(header):
                raise ValueError(f"{where}: {len(row)} values, but {len(header)} column names")
            flat.extend(_number(row[p], f"{where}, column {header[p]!r}") for p in places)
            if clock is not None:
                times.append(_instant(row[clock], f"{where}, column {time!r}"))
            lines.append(rows.line_num)
        values = np.array(flat).reshape(len(lines), len(names))
        return cls(values, np.array(times), np.array(lines, np.int64), time)

    def steps(self, tolerance: float) -> tuple[float | None, NDArray[np.bool_]]:
        """The usual step, and whether a gap follows each row."""
        steps = np.diff(self.times)
        if len(steps) == 0:
            return None, np.zeros(len(self.values), np.bool_)
        usual = float(np.median(steps))
        gap = steps > GAP * usual
        uneven = (steps <= 0) | (~gap & (np.abs(steps - usual) > tolerance * usual))
        if uneven.any():
            row = int(np.argmax(uneven))
            raise ValueError(
                f"line {self.lines[row + 1]}, column {self.time!r}: {steps[row]:g} after the row "
                f"before, where {usual:g} is usual; sort the rows by time and resample them to "
                f"equal steps, or raise the tolerance of {tolerance:g}"
            )
        return usual, gap


def _number(text: str, where: str) -> float:
    text = text.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value) or "_" in text:  # Python would read 1_000
        raise ValueError(f"{where}: {text!r} is no finite number")
    return value


def _instant(text: str, where: str) -> float:
    """A number as it is, a date in seconds."""
    text = text.strip()
    try:
        value = _number(text, where)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{where}: {text!r} is neither a number nor an ISO date") from None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if math.isnan(value):
        raise ValueError(f"{where}: {text!r} is no time; fill it in or leave the row out")
    return value
