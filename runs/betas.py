"""What the weight of a VAE's prior is worth: to pictures, to codes, to the agent that sees them.

    python runs/betas.py --set steps=4000 --seeds 0 1 2 --jobs 2

Every weight is a training of the recipe, whose latent is then examined on frames that it has not
seen. `runs/results/betas.json` and its figure are written after each; called again, only what
is missing is trained.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import BLUE
from matplotlib.figure import Figure
from series import OUT, RESULTS, Facts, Training, run_all, versions, write_json

from rlkit.analysis.latent.frames import held_out_frames
from rlkit.analysis.latent.scores import scores
from rlkit.analysis.latent.training import agents_latent
from rlkit.envs.make import make
from rlkit.experiment.plots import remove_spines
from rlkit.experiment.recipe import load_recipe

BETAS = (0.1, 1.0, 10.0, 30.0, 100.0)
PATH = RESULTS / "betas.json"
# Name in the file, title, and the range that is worth seeing.
PANELS = (
    ("explained", "variance of pictures kept", (0, 1)),
    ("kl", "divergence from the prior, nats", (0, None)),
    ("linear_r2", "place from code, linear R2", (0, 1)),
    ("neighbour_r2", "place from code, neighbours' R2", (0, 1.03)),
    ("disentanglement", "mutual information gap", (0, None)),
    ("success_rate", "success of the agent", (0, 1)),
)


def latent_facts(run: Path, env: str, factor: str) -> Facts:
    """What the latent of a run is worth, on frames from other seeds.

    Args:
        run: The run's folder.
        env: Id of its environment.
        factor: The true numbers that its codes should tell.
    """
    latent, frames = agents_latent(run), held_out_frames(env, make)
    found = scores(latent, frames, *latent.posterior(frames.pictures))
    told = found["factors"][factor]
    return {
        "explained": found["explained"],
        "error": found["error"],
        "kl": sum(found["kl_per_dim"]),
        "active_units": found["active_units"],
        "linear_r2": min(told["linear_r2"]),
        "neighbour_r2": min(told["neighbour_r2"]),
        "distance_correlation": told["distance_correlation"],
        "disentanglement": told["disentanglement"],
    }


def settings_of(recipe: str, beta: float) -> tuple[str, ...]:
    """The recipe's latent with another weight, as `rlkit train --set` takes it."""
    latent: Mapping[str, Any] = load_recipe(recipe).agent_options["latent"]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in latent.items())
    return (f"agent_options.latent={{{table}, beta = {beta}}}",)


def ladder_figure(content: Mapping[str, Any]) -> Figure:
    """Every measure over the weight: a dot per seed, a line through the means."""
    figure = Figure(figsize=(9.6, 5.4), dpi=120, layout="constrained")
    rows = [row for row in content["rows"] if row["runs"]]
    for axes, (name, title, limits) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for row in rows:
            values = [run[name] for run in row["runs"]]
            axes.plot([row["beta"]] * len(values), values, "o", color=BLUE, alpha=0.5, ms=4)
        means = [np.mean([run[name] for run in row["runs"]]) for row in rows]
        axes.plot([row["beta"] for row in rows], means, "-", color=BLUE, lw=2)
        axes.set(xscale="log", title=title, ylim=limits, xlabel="beta")
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        remove_spines(axes)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing; 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", default="pixel-maze")
    parser.add_argument("--factor", default="position", help="what codes should tell")
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="longest time of one training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    args = parser.parse_args(arguments)

    env = load_recipe(args.recipe).env
    head = {
        "kind": "beta ladder",
        "recipe": args.recipe,
        "settings": args.settings,
        "factor": args.factor,
    }
    old = json.loads(PATH.read_text()) if PATH.exists() else {}
    if old and any(old[key] != value for key, value in head.items()):
        raise ValueError(f"{PATH} holds another ladder; remove it first")
    known = {row["beta"]: row["runs"] for row in old.get("rows", [])}
    rows = [{"beta": beta, "runs": known.get(beta, [])} for beta in sorted({*args.betas, *known})]
    todo: dict[Training, dict[str, Any]] = {}
    for seed in args.seeds:
        for row in rows:
            if all(run["seed"] != seed for run in row["runs"]):
                folder = OUT / "betas" / f"{row['beta']:g}" / f"seed-{seed}"
                todo[Training(args.recipe, seed, settings_of(args.recipe, row["beta"]), folder)] = (
                    row
                )

    def finished(training: Training, facts: Facts) -> Iterable[Training]:
        facts |= latent_facts(training.folder, env, args.factor)
        runs = todo[training]["runs"]
        runs.append(facts)
        runs.sort(key=lambda run: run["seed"])
        content = {**head, "versions": versions(), "rows": rows}
        write_json(PATH, content)
        ladder_figure(content).savefig(PATH.with_suffix(".png"))
        print(f"{training.folder}: success {facts['success_rate']:.0%}", file=sys.stderr)
        return ()

    return 1 if run_all(todo, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
