"""Finds the longest CueMaze corridor that each encoder solves.

    python runs/studies/corridor_lengths.py --steps 60000 --minutes 10 --jobs 2

Each encoder and seed starts with the shortest corridor and continues with the next length until it
fails to solve one within the budget. `runs/results/cue-maze-lengths.json` and its figure are
written after each corridor; another call continues from there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import training_runs
from figures import length_map
from training_runs import Facts, TrainingRun

RECIPE, EPISODES = "cue-maze", 100
ENCODERS = ("rnn", "gru", "lstm", "mingru", "lru", "conv", "transformer")
BUDGET = ("lengths", "steps", "minutes", "solved", "settings")


def next_length(
    tried: Sequence[Mapping[str, Any]], lengths: Sequence[int], solved: float
) -> int | None:
    """The length to train next; None after a failure or after the last length.

    Args:
        tried: Results so far of one encoder and seed.
        lengths: All lengths, ascending.
        solved: Success rate from which a length counts as solved.
    """
    if any(run["success_rate"] < solved for run in tried):
        return None
    done = {run["length"] for run in tried}
    return next((length for length in lengths if length not in done), None)


def encoder_settings(encoder: str, length: int) -> tuple[str, ...]:
    """Settings of an encoder of 64 units whose reach, where configurable, covers an episode."""
    episode = length + max(5, length // 4) + 1  # observations
    reach = {
        "gru": f", time_scale = {episode}",
        "lstm": f", time_scale = {episode}",
        "lru": f", slowest = {max(0.99, 1 - 1 / episode):.4g}",
        "mingru": f", time_scale = {episode}",
        "transformer": f", context = {episode}",
        # Each layer of two taps doubles the reach.
        "conv": f", layers = {math.ceil(math.log2(episode))}",
    }
    table = f'{{name = "{encoder}", hidden = 64{reach.get(encoder, "")}}}'
    return (f"agent_options.encoder={table}",)


class CorridorLengths:
    """The results file.

    Args:
        path: The file; it need not exist yet.
        budget: What all trainings share: `lengths`, `steps`, `minutes`, `solved`, `settings`.

    Raises:
        ValueError: If the file holds results with another budget.
    """

    def __init__(self, path: Path, budget: Mapping[str, Any]) -> None:
        self._path = path
        found = training_runs.read_results(path, budget, "remove it to start again")
        self.content: dict[str, Any] = {
            "kind": "corridor lengths",
            "recipe": RECIPE,
            **budget,
            "versions": training_runs.versions(),
            "attempts": {},
        } | found

    def tried(self, encoder: str, seed: int) -> list[Facts]:
        """Results so far of one encoder and seed."""
        runs: list[Facts] = (
            self.content["attempts"].setdefault(encoder, {}).setdefault(str(seed), [])
        )
        return runs

    def next_run(self, encoder: str, seed: int, out: Path) -> Iterable[tuple[TrainingRun, int]]:
        """The next training and its length; nothing if the encoder is finished."""
        content = self.content
        length = next_length(self.tried(encoder, seed), content["lengths"], content["solved"])
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
            yield TrainingRun(RECIPE, seed, settings, folder), length

    def add(self, encoder: str, seed: int, facts: Facts) -> None:
        """Adds one result to the file and draws the figure again."""
        self.tried(encoder, seed).append(facts)
        training_runs.write_json(self._path, self.content)
        length_map(self.content).savefig(self._path.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; returns 1 if a training failed."""
    parser = training_runs.argument_parser(__doc__)
    parser.set_defaults(seeds=[0], minutes=10.0)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 50, 100, 200])
    parser.add_argument("--steps", type=int, default=60_000, help="step limit of one training")
    parser.add_argument("--solved", type=float, default=0.95, help="success rate that is enough")
    args = parser.parse_args(arguments)

    budget = {key: getattr(args, key) for key in BUDGET}
    results = CorridorLengths(training_runs.RESULTS / f"{RECIPE}-lengths.json", budget)
    places: dict[TrainingRun, tuple[str, int, int]] = {}

    def next_runs(encoder: str, seed: int) -> list[TrainingRun]:
        found = list(results.next_run(encoder, seed, training_runs.OUT / "corridor-lengths"))
        places.update({run: (encoder, seed, length) for run, length in found})
        return [run for run, _ in found]

    def finished(run: TrainingRun, facts: Facts) -> Iterable[TrainingRun]:
        encoder, seed, length = places[run]
        results.add(encoder, seed, {"length": length, **facts})
        share, minutes = facts["success_rate"], facts["minutes"]
        print(f"{encoder}, {length}, seed {seed}: {share:.0%} in {minutes} min", file=sys.stderr)
        return next_runs(encoder, seed)

    first = [run for name in args.encoders for seed in args.seeds for run in next_runs(name, seed)]
    return 1 if training_runs.run_all(first, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
