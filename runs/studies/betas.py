"""Measures the effect of a VAE's beta on reconstruction, on the latents and on the agent.

    python runs/studies/betas.py --seeds 0 1 2 --jobs 2

Each beta is a training of the recipe; its latent model is then evaluated on held-out frames.
`runs/results/betas.json` and its figure are written after each training; another call trains only
what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import training_runs
from figures import BLUE
from matplotlib.figure import Figure
from training_runs import Facts, TrainingRun

from rlkit.analysis.latent.frames import held_out_frames
from rlkit.analysis.latent.scores import scores
from rlkit.analysis.latent.training import agents_latent
from rlkit.envs.make import make
from rlkit.experiment.plots import remove_spines
from rlkit.experiment.recipe import load_recipe

BETAS = (0.1, 1.0, 10.0, 30.0, 100.0)
PATH = training_runs.RESULTS / "betas.json"
# Key in the file, title, and the limits of the axis.
PANELS = (
    ("explained", "explained variance of pictures", (0, 1)),
    ("kl", "KL divergence from the prior, nats", (0, None)),
    ("linear_r2", "position from latent, linear R2", (0, 1)),
    ("neighbour_r2", "position from latent, neighbours' R2", (0, 1.03)),
    ("disentanglement", "mutual information gap", (0, None)),
    ("success_rate", "success of the agent", (0, 1)),
)


def latent_facts(run: Path, env: str, factor: str) -> Facts:
    """Scores of a run's latent model on frames from other seeds.

    Args:
        run: The run's folder.
        env: Id of its environment.
        factor: The true state variables that are predicted from latents.
    """
    latent, frames = agents_latent(run), held_out_frames(env, make)
    found = scores(latent, frames, *latent.posterior(frames.images))
    probe = found["factors"][factor]
    return {
        "explained": found["explained"],
        "error": found["error"],
        "kl": sum(found["kl_per_dim"]),
        "active_units": found["active_units"],
        "linear_r2": min(probe["linear_r2"]),
        "neighbour_r2": min(probe["neighbour_r2"]),
        "distance_correlation": probe["distance_correlation"],
        "disentanglement": probe["disentanglement"],
    }


def settings_of(recipe: str, beta: float) -> tuple[str, ...]:
    """The recipe's latent model with another beta, as `rlkit train --set` takes it."""
    latent: Mapping[str, Any] = load_recipe(recipe).agent_options["latent"]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in latent.items())
    return (f"agent_options.latent={{{table}, beta = {beta}}}",)


def beta_figure(content: Mapping[str, Any]) -> Figure:
    """Each score over beta: a dot per seed, a line through the means."""
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
    """Trains what is missing; returns 1 if a training failed."""
    parser = training_runs.argument_parser(__doc__)
    parser.add_argument("--recipe", default="pixel-maze")
    parser.add_argument("--factor", default="position", help="state variables to predict")
    parser.add_argument("--betas", type=float, nargs="+", default=BETAS)
    args = parser.parse_args(arguments)

    env = load_recipe(args.recipe).env
    head = {
        "kind": "beta sweep",
        "recipe": args.recipe,
        "settings": args.settings,
        "factor": args.factor,
    }
    old = training_runs.read_results(PATH, head, "remove it to start again")
    known = {row["beta"]: row["runs"] for row in old.get("rows", [])}
    rows = [{"beta": beta, "runs": known.get(beta, [])} for beta in sorted({*args.betas, *known})]
    todo: dict[TrainingRun, dict[str, Any]] = {}
    for seed in args.seeds:
        for row in rows:
            if all(run["seed"] != seed for run in row["runs"]):
                folder = training_runs.OUT / "betas" / f"{row['beta']:g}" / f"seed-{seed}"
                settings = (*args.settings, *settings_of(args.recipe, row["beta"]))
                todo[TrainingRun(args.recipe, seed, settings, folder)] = row

    def finished(run: TrainingRun, facts: Facts) -> Iterable[TrainingRun]:
        facts |= latent_facts(run.folder, env, args.factor)
        runs = todo[run]["runs"]
        runs.append(facts)
        runs.sort(key=lambda known: known["seed"])
        content = {**head, "versions": training_runs.versions(), "rows": rows}
        training_runs.write_json(PATH, content)
        beta_figure(content).savefig(PATH.with_suffix(".png"))
        print(f"{run.folder}: success {facts['success_rate']:.0%}", file=sys.stderr)
        return ()

    return 1 if training_runs.run_all(todo, args.jobs, args.minutes, finished) else 0


if __name__ == "__main__":
    sys.exit(main())
