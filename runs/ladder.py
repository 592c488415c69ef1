"""How long a corridor each encoder remembers through: a ladder of lengths, one after the other.

    python runs/ladder.py --steps 60000 --minutes 10 --jobs 2

Every encoder and seed climbs on its own, from the shortest corridor up, and stops at the first
that it does not solve within the budget. `runs/results/cue-maze-ladder.json` and its figure are
written after every corridor; called again, a climb goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import ladder_map
from series import OUT, RESULTS, Facts, Training, run_all, versions, write_json

RECIPE, EPISODES = "cue-maze", 100
ENCODERS = ("rnn", "gru", "lstm", "mingru", "lru", "conv", "transformer")


def next_length(
    rungs: Sequence[Mapping[str, Any]], lengths: Sequence[int], solved: float
) -> int | None:
    """The length that a climb tries next, None where it is over.

    Args:
        rungs: What the climb has tried.
        lengths: The ladder, from short to long.
        solved: Success rate from which on a length counts as solved.
    """
    if any(rung["success_rate"] < solved for rung in rungs):
        return None
    tried = {rung["length"] for rung in rungs}
    return next((length for length in lengths if length not in tried), None)


def encoder_settings(encoder: str, length: int) -> tuple[str, ...]:
    """The encoder at the recipe's width; where its reach is a setting, it covers an episode."""
    episode = length + max(5, length // 4) + 1  # observations
    reach = {
        "gru": f", time_scale = {episode}",
        "lstm": f", time_scale = {episode}",
        "lru": f", slowest = {max(0.99, 1 - 1 / episode):.4g}",
        "mingru": f", time_scale = {episode}",
        "transformer": f", context = {episode}",
        # Every layer of two taps doubles the reach.
        "conv": f", layers = {math.ceil(math.log2(episode))}",
    }
    table = f'{{name = "{encoder}", hidden = 64{reach.get(encoder, "")}}}'
    return (f"agent_options.encoder={table}",)


class Ladder:
    """The file of all climbs.

    Args:
        path: Where it lies or will lie.
        budget: What every climb has in common: `lengths`, `steps`, `minutes`, `solved` and
            `settings`.

    Raises:
        ValueError: If the file holds climbs with another budget.
    """

    def __init__(self, path: Path, budget: Mapping[str, Any]) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        for key, value in budget.items():
            if found and found[key] != value:
                raise ValueError(
                    f"{path} holds climbs with {key} = {found[key]!r}, not {value!r}; "
                    f"remove it to climb anew"
                )
        kind = {"kind": "ladder", "recipe": RECIPE}
        climbs: dict[str, dict[str, list[Facts]]] = {}
        self.content: dict[str, Any] = {
            **kind,
            **budget,
            "versions": versions(),
            "climbs": climbs,
        } | found

    def climb(self, encoder: str, seed: int) -> list[Facts]:
        """What an encoder has tried with a seed."""
        rungs: list[Facts] = (
            self.content["climbs"].setdefault(encoder, {}).setdefault(str(seed), [])
        )
        return rungs

    def next_training(self, encoder: str, seed: int, out: Path) -> Iterable[tuple[Training, int]]:
        """The next corridor of a climb with its length; nothing where the climb is over."""
        content = self.content
        length = next_length(self.climb(encoder, seed), content["lengths"], content["solved"])
        if length is not None:
            settings = (
                "env=rlkit/CueMaze-v0",
                f"env_options.length={length}",
                f"steps={content['steps']}",
                *encoder_settings(encoder, length),
                f"evaluation.final_episodes={EPISODES}",
                *content["settings"],
            )
            folder = out / encoder / f"length-{length}-seed-{seed}"
            yield Training(RECIPE, seed, settings, folder), length

    def add(self, encoder: str, seed: int, facts: Facts) -> None:
        """Writes one more corridor into the file, and draws the figure."""
        self.climb(encoder, seed).append(facts)
        write_json(self._path, self.content)
        ladder_map(self.content).savefig(self._path.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Climbs; 1 where a training failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=60_000, help="longest training, in steps")
    parser.add_argument("--minutes", type=float, default=10.0, help="longest training, in time")
    parser.add_argument("--solved", type=float, default=0.95, help="success rate that is enough")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    args = parser.parse_args(arguments)

    shared = ("lengths", "steps", "minutes", "solved", "settings")
    budget = {key: getattr(args, key) for key in shared}
    ladder = Ladder(RESULTS / f"{RECIPE}-ladder.json", budget)
    places: dict[Training, tuple[str, int, int]] = {}

    def onwards(encoder: str, seed: int) -> list[Training]:
        found = list(ladder.next_training(encoder, seed, OUT / "ladder"))
        places.update({training: (encoder, seed, length) for training, length in found})
        return [training for training, _ in found]

    def finished(training: Training, facts: Facts) -> Iterable[Training]:
        encoder, seed, length = places[training]
        ladder.add(encoder, seed, {"length": length, **facts})
        share, minutes = facts["success_rate"], facts["minutes"]
        print(f"{encoder}, {length}, seed {seed}: {share:.0%} in {minutes} min", file=sys.stderr)
        return onwards(encoder, seed)

    first = [one for name in args.encoders for seed in args.seeds for one in onwards(name, seed)]
    return 1 if run_all(first, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
