"""The commands `rlkit world`: train world models, and score them beside honest controls.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from rlkit.cli.console import (
    Folder,
    Json,
    Settings,
    env_maker,
    print_json,
    quiet_output,
    to_stderr,
)

app = SubcommandApp()
Data = Annotated[str, arg(metavar="ID_OR_PATH")]
Names = Annotated[tuple[str, ...], arg(metavar="COLUMN...")]
Column = Annotated[str | None, arg(metavar="COLUMN")]
Latent = Annotated[str | None, arg(metavar="FOLDER")]
BASELINES = {
    "persistence": "baseline: what is now will be",
    "trend": "baseline: the line through the last observations",
    "ar": "baseline: each column from its own past",
    "arx": "baseline: all columns from the past of all, and actions",
    "arima": "baseline, by statsmodels",
    "sarima": "baseline, by statsmodels; --set sarima.period=N",
    "tank_filter": "baseline: the true laws of `tanks`, which nothing can beat",
}


@app.command
def train(
    model: Annotated[str, Positional, arg(metavar="MODEL")],
    data: Data,
    gather: int = 20_000,
    correlated: float = 0.5,
    targets: Names = (),
    drivers: Names = (),
    time: Column = None,
    latent: Latent = None,
    steps: int = 5_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    out: Folder = None,
    settings: Settings = (),
    json: Json = False,
) -> int:
    """Train a world model and save it; the same command goes on with what was interrupted.

    Args:
        model: Name of a world model (see `rlkit list worlds`), or my_pkg.mod:Class.
        data: Id of an environment, run, .csv file, tanks, or Minari data set (minari:NAME).
        gather: Steps to gather in an environment.
        correlated: Share of the episodes in which random actions are correlated in time.
        targets: Columns of a .csv file to forecast.
        drivers: Columns of a .csv file that are known ahead.
        time: Column of times in a .csv file.
        latent: Folder of a latent model that makes codes of pictures, or an agent's run.
        steps: Gradient steps.
        batch_size: Records per step.
        learning_rate: Adam's step size.
        seed: Seed of everything random.
        out: Where world/ goes; runs/out/worlds/<data>/<model> without it.
        settings: Settings of the model, as in members=3; env_options.KEY is the environment's.
        json: Print one JSON object on standard output, and nothing else.
    """
    from rlkit.analysis.world import training
    from rlkit.analysis.world.data import Source

    source = Source(data, gather, correlated, targets, drivers, time, latent)
    with quiet_output(json):
        found = training.train_world(
            model,
            source,
            env_maker(),
            out,
            settings=settings,
            fitting=training.Fitting(steps, batch_size, learning_rate),
            seed=seed,
        )
    return _tell_training(found, json)


@app.command
def score(
    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL_OR_FOLDER...")],
    data: Data,
    gather: int = 20_000,
    correlated: float = 0.5,
    targets: Names = (),
    drivers: Names = (),
    time: Column = None,
    latent: Latent = None,
    horizons: tuple[int, ...] = (1, 5, 15, 50),
    context: int = 15,
    windows: int = 300,
    samples: int = 50,
    controls: bool = True,
    steps: int = 5_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seeds: tuple[int, ...] = (0,),
    out: Folder = None,
    settings: Settings = (),
    json: Json = False,
) -> int:
    """Score world models and baselines on held-out data: table, score.json, figures.

    Args:
        models: Folders of worlds, names of models (fitted here), or baselines; NAME=MODEL to
            show one under a name of its own.
        data: Id of an environment, run, .csv file, tanks, or Minari data set (minari:NAME).
        gather: Steps to gather in an environment.
        correlated: Share of the episodes in which random actions are correlated in time.
        targets: Columns of a .csv file to forecast.
        drivers: Columns of a .csv file that are known ahead.
        time: Column of times in a .csv file.
        latent: Folder of a latent model that makes codes of pictures, or an agent's run.
        horizons: Steps ahead; those that the data do not allow are left out.
        context: Steps that are seen before a forecast.
        windows: Forecasts, at most.
        samples: Per forecast.
        controls: Add persistence, ARX, linear dynamics, and random recurrent cores.
        steps: Gradient steps of models that are fitted here.
        batch_size: Records per step.
        learning_rate: Adam's step size.
        seeds: Of gathered data and of fits; several give intervals.
        out: Where the scorecard goes; runs/out/worlds/<data>/score without it.
        settings: As in ensemble.members=3; env_options.KEY is the environment's.
        json: Print one JSON object on standard output, and nothing else.
    """
    from rlkit.analysis.world.benchmark import BenchmarkSettings
    from rlkit.analysis.world.data import Source
    from rlkit.analysis.world.report import describe_score, score_worlds
    from rlkit.analysis.world.training import Fitting

    source = Source(data, gather, correlated, targets, drivers, time, latent)
    with quiet_output(json):
        found = score_worlds(
            models,
            source,
            env_maker(),
            out,
            settings=settings,
            fitting=Fitting(steps, batch_size, learning_rate),
            protocol=BenchmarkSettings(horizons, context, windows, samples),
            seeds=seeds,
            controls=controls,
        )
    if json:
        print_json(found)
    else:
        print(f"{describe_score(found)}\nsee {found['folder']}")
        print(f"watch it with: tensorboard --logdir {found['folder']}")
    return 0


def _tell_training(found: dict[str, Any], json: bool) -> int:
    if json:
        print_json(found)
    say = to_stderr if json else print
    folder, stopped = found["folder"], found["stopped"]
    if stopped:
        import signal

        say(f"{folder} stopped at step {found['steps']:,}, and saved; the same command goes on")
        return 128 + signal.Signals[stopped]
    measured = ", ".join(f"{name} {value:.4g}" for name, value in found["held_out"].items())
    say(f"{folder}, {found['steps']:,} steps in {found['seconds']:.0f} s; held out: {measured}")
    say(f"score it with: rlkit world score {folder} --data {found['source']['data']}")
    return 0
