"""Rows of the table of faults, from `reliability.toml` and the `matrix` of benchmark results."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMNS = ["", "what happens", "passed if", "tested by", "measured"]
_TEXTS = Path(__file__).resolve().with_name("reliability.toml")


def cases() -> dict[int, dict[str, Any]]:
    """By number of a row: `case`, `rule`, and under `where` the files that test it."""
    return {int(number): row for number, row in tomllib.loads(_TEXTS.read_text()).items()}


def measured(folder: Path) -> dict[int, str]:
    """By number of a row, the figure of the newest measurement, marked where it failed."""
    found: dict[int, str] = {}
    for path in sorted(folder.glob("bench_*.json")):
        result = json.loads(path.read_text())
        for row in result.get("matrix", ()) if isinstance(result, dict) else ():
            failed = "" if row["passed"] else " (failed)"
            found[int(row["row"])] = f"{row['figure']}{failed}"
    return found


def matrix_rows(folder: Path) -> Iterator[list[str]]:
    """One row per kind of fault that is tested."""
    figures = measured(folder)
    for number, row in cases().items():
        where = ", ".join(f"`{name}`" for name in row["where"])
        if where or number in figures:
            yield [str(number), row["case"], row["rule"], where, figures.get(number, "")]
