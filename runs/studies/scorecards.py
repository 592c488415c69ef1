"""Scores all world models on seven data sets, with baselines and controls.

    python runs/studies/scorecards.py
    python runs/studies/scorecards.py pendulum tanks --seeds 0 1 2 --steps 1500

Each data set is one `rlkit world score` of all models over several seeds. The full scorecard is
written to `runs/out/scorecards/<set>`, a summary to `runs/results/world-<set>.json` with the
figures of errors and calibration. Existing results are kept unless `--overwrite` is given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_runs import add_folders, versions, write_json

from rlkit.analysis.latent.training import train_latent
from rlkit.analysis.world.data import Source
from rlkit.analysis.world.report import describe_score, score_worlds
from rlkit.analysis.world.training import Fitting
from rlkit.envs.make import make

_LONG = {"max_episode_steps": 100}  # room for 50 steps after the context
SETS = {
    "pendulum": Source("Pendulum-v1"),
    "planar-reach": Source("rlkit/PlanarReach-v0", env_options=_LONG),
    "point-maze": Source("rlkit/PointMaze-U-v0", env_options=_LONG),
    "fetch-reach": Source("FetchReach-v4", env_options=_LONG),
    "maze-latents": Source("rlkit/PointMaze-U-Pixels-v0", env_options=_LONG),
    "pendulum-hidden-velocity": Source("rlkit/Pendulum-HiddenVelocity-v0"),
    "tanks": Source("tanks"),
}
MODELS = (
    *("ensemble", "mdn_rnn", "gaussian=rssm", "categorical=rssm"),
    *("seq2seq", "attention=seq2seq", "one step=seq2seq"),
)
# In deterministic environments the true simulator would have no error at all.
BOUNDS = {"tanks": ("tank_filter",)}
SETTINGS = (
    # As large as seq2seq, so that the comparison isolates training on single steps.
    "mdn_rnn.core={name = 'gru', hidden = 92}",
    "categorical.latents=categorical",
    "attention.attention=true",
    "one step.free_running=0.0",
    "one step.feedback=sample",
)
# The latent model of the recipe pixel-maze.
LATENT = ("dims=8", "spatial=true", "variance=0.002", "annealing=500")
KEPT = ("errors", "calibration", "fans_gaussian", "open_loop_gaussian")


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1_500, help="gradient steps of each model")
    parser.add_argument("--records", type=int, default=1_024, help="records per gradient step")
    parser.add_argument("--overwrite", action="store_true", help="score again what has results")
    add_folders(parser, "scorecards")
    args = parser.parse_args(arguments)
    for name in args.sets or SETS:
        path = args.results / f"world-{name}.json"
        if args.overwrite or not path.exists():
            _score(name, path, args)
    return 0


def _score(name: str, path: Path, args: argparse.Namespace) -> None:
    began = time.monotonic()
    folder = args.out / name
    source = SETS[name]
    if "Pixels" in source.data:
        source = replace(source, latent=_latent(source.data, args.out / "latent"))
    found = score_worlds(
        (*MODELS, *BOUNDS.get(name, ())),
        source,
        make,
        folder,
        settings=SETTINGS,
        fitting=Fitting(args.steps, args.records),
        seeds=args.seeds,
    )
    (folder / "tables.txt").write_text(describe_score(found) + "\n")
    facts = {
        "kind": "scorecard",
        "set": name,
        "settings": list(SETTINGS),
        "fitting": {"steps": args.steps, "records": args.records},
        "minutes": round((time.monotonic() - began) / 60, 1),
        "versions": versions(),
        **{key: found[key] for key in ("data", "protocol", "seeds")},
        "models": {key: _summary(known) for key, known in found["models"].items()},
    }
    facts["data"] = {**facts["data"], "latent": source.latent and "vae " + " ".join(LATENT)}
    facts["protocol"].pop("regions", None)
    write_json(path, facts)
    for figure in KEPT:
        drawn = folder / f"{figure}.png"
        if drawn.exists():  # open_loop: only latents are decoded
            shutil.copy(drawn, path.with_name(f"{path.stem}-{figure}.png"))
    print(describe_score(found), file=sys.stderr)


def _latent(env: str, folder: Path) -> str:
    """The folder of a latent model for pictures, trained once for all seeds."""
    if not (folder / "latent").is_dir():
        train_latent(
            "vae", env, make, folder, settings=LATENT, count=6_000, steps=2_000, learning_rate=3e-3
        )
    return str(folder)


def _summary(known: dict[str, Any]) -> dict[str, Any]:
    """Scores of a model without the data of figures, rounded to five digits."""
    runs = [{"horizons": run["horizons"], "cost": run["cost"]} for run in known["runs"]]
    rounded: dict[str, Any] = json.loads(
        json.dumps({**known, "runs": runs}), parse_float=lambda text: float(f"{float(text):.5g}")
    )
    return rounded


if __name__ == "__main__":
    sys.exit(main())
