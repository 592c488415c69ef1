"""Rows of the tables of world models, from the scorecards in `world-<set>.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmark_rows import read

_WORST, _COSTS_ON = -9.0, "pendulum"
Rows = Callable[[Path], Iterator[list[str]]]
SHOWN = {
    "ensemble": "ensemble",
    "mdn_rnn": "MDN-RNN",
    "mdn_rnn, random core": "its random core",
    "gaussian": "RSSM, Gaussian",
    "categorical": "RSSM, categorical",
    "seq2seq": "seq2seq",
    "attention": "with attention",
    "one step": "trained on one step",
    "linear": "linear",
    "tank_filter": "true laws",
}
"""Models that are columns, with their headings."""


def table_of(key: str, step: str, form: str) -> tuple[list[str], Rows]:
    """Headings and rows of one score of all models, one row per data set.

    Args:
        key: Name of the score in `score.json`.
        step: Steps ahead.
        form: Format of a number.
    """

    def rows(folder: Path) -> Iterator[list[str]]:
        for card in scorecards(folder):
            cells = [_cell(card["models"].get(name), key, step, form) for name in SHOWN]
            yield [f"`{card['set']}`", *cells]

    return ["data", *SHOWN.values()], rows


COSTS = [f"on `{_COSTS_ON}`", "parameters", "seconds of training", "µs per imagined step"]


def cost_rows(folder: Path) -> Iterator[list[str]]:
    """One row per model: size and time."""
    models = read(folder / f"world-{_COSTS_ON}.json").get("models", {})
    for name, title in SHOWN.items():
        if name not in models:
            continue
        cost = models[name]["cost"]
        yield [
            title,
            f"{cost['parameters']:,.0f}",
            f"{cost['training_s']:.0f}",
            f"{cost['us_per_imagined_step']:.1f}",
        ]


def scorecards(folder: Path) -> Iterator[dict[str, Any]]:
    """Results of `scorecards.py`, sorted by name."""
    for path in sorted(folder.glob("world-*.json")):
        yield json.loads(path.read_text())


def _cell(known: dict[str, Any] | None, key: str, step: str, form: str) -> str:
    value = known and known["horizons"].get(step, {}).get(key)
    if known is None or value is None:
        return "-"
    half = known["interval"][step].get(key)
    if "skill" in key and value < _WORST:
        return f"< {_WORST:.0f}"  # the size of a skill this low means nothing
    return form.format(value) + ("" if half is None else f" ± {form.format(half)}")
