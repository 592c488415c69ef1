"""The commands `rlkit world`: train world models, and score them beside baselines.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from rlkit.cli.console import (
    Fit,
    FitOptions,
    Folder,
    Json,
    Settings,
    Trust,
    env_maker,
    print_report,
    print_training,
    quiet_output,
    trusting,
)
from rlkit.cli.words import Commands

if TYPE_CHECKING:
    from rlkit.analysis.world.data import Source
    from rlkit.analysis.world.training import Fitting

Names = Annotated[tuple[str, ...], arg(metavar="COLUMN...")]
Column = Annotated[str | None, arg(metavar="COLUMN")]
BASELINES = {
    "persistence": "baseline: the last observation",
    "trend": "baseline: a line through the last observations",
    "ar": "baseline: each column from its own past values",
    "arx": "baseline: each column from past values of all columns, and actions",
    "arima": "baseline, by statsmodels",
    "sarima": "baseline, by statsmodels; --set sarima.period=N",
    "tank_filter": "baseline: a filter with the true dynamics of `tanks`, the best possible",
}


@dataclass(frozen=True)
class DataOptions:
    """Data of world models; the fields of `rlkit.analysis.world.data.Source`."""

    data: Annotated[str, arg(metavar="ID_OR_PATH")]
    """Id of an environment, run, .csv file, tanks, or Minari data set (minari:NAME)."""
    gather: int = 20_000
    """Steps to collect in an environment."""
    correlated: float = 0.5
    """Share of the episodes in which random actions are correlated in time."""
    targets: Names = ()
    """Columns of a .csv file to forecast."""
    drivers: Names = ()
    """Columns of a .csv file whose future is known."""
    time: Column = None
    """Column of times in a .csv file."""
    latent: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Folder of a latent model that encodes images, or an agent's run."""

    def source(self) -> Source:
        """The same for `rlkit.analysis`, which is imported only now."""
        from rlkit.analysis.world.data import Source

        return Source(**vars(self))


Data = Annotated[DataOptions, OmitArgPrefixes]
FIT = FitOptions(batch_size=256)


def _fitting(options: FitOptions) -> Fitting:
    from rlkit.analysis.world.training import Fitting

    return Fitting(options.steps, options.batch_size, options.learning_rate)


@trusting
def train(
    model: Annotated[str, Positional, arg(metavar="MODEL")],
    source: Data,
    fit: Fit = FIT,
    seed: int = 0,
    out: Folder = None,
    settings: Settings = (),
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train a world model and save it; the same command continues an interrupted training.

    Args:
        model: Name of a world model (see `rlkit list worlds`), or my_pkg.mod:Class.
        source: Data to learn from.
        fit: Gradient steps.
        seed: Seed of everything random.
        out: Folder for world/; by default runs/out/worlds/<data>/<model>.
        settings: A setting of the model, such as members=3; env_options.KEY is the environment's.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.analysis.world.training import train_world

    with quiet_output(json):
        found = train_world(
            model,
            source.source(),
            env_maker(),
            out,
            settings=settings,
            fitting=_fitting(fit),
            seed=seed,
        )
    return _print_training(found, json)


@trusting
def score(
    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL_OR_FOLDER...")],
    source: Data,
    horizons: tuple[int, ...] = (1, 5, 15, 50),
    context: int = 15,
    windows: int = 300,
    samples: int = 50,
    controls: bool = True,
    fit: Fit = FIT,
    seeds: tuple[int, ...] = (0,),
    out: Folder = None,
    settings: Settings = (),
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Score world models and baselines on held-out data: table, score.json, figures.

    Args:
        models: Folders of world models, names of models (fitted here), or baselines; NAME=MODEL
            gives one another name.
        source: Data, a part of which is held out.
        horizons: Steps ahead; those longer than the data allow are left out.
        context: Steps observed before a forecast.
        windows: Forecast windows at most.
        samples: Samples per forecast.
        controls: Add persistence, ARX, linear dynamics, and recurrent models with random weights.
        fit: Gradient steps of models that are fitted here.
        seeds: Seeds of collected data and of fits; several give intervals.
        out: Folder for the scores; by default runs/out/worlds/<data>/score.
        settings: A setting of a model, such as ensemble.members=3; env_options.KEY is the
            environment's.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.analysis.world.benchmark import BenchmarkSettings
    from rlkit.analysis.world.report import describe_score, score_worlds

    with quiet_output(json):
        found = score_worlds(
            models,
            source.source(),
            env_maker(),
            out,
            settings=settings,
            fitting=_fitting(fit),
            protocol=BenchmarkSettings(horizons, context, windows, samples),
            seeds=seeds,
            controls=controls,
        )
    return print_report(found, describe_score(found), json)


COMMANDS: Commands = {"train": train, "score": score}


def _print_training(found: dict[str, Any], json: bool) -> int:
    folder, steps = found["folder"], found["steps"]
    measured = found.get("held_out", {}).items()
    error = ", ".join(f"{name} {value:.4g}" for name, value in measured)
    done = [
        f"{folder}, {steps:,} steps in {found['seconds']:.0f} s; held out: {error}",
        f"score it with: rlkit world score {folder} --data {found['source']['data']}",
    ]
    stopped = f"{folder} stopped at step {steps:,} and saved; the same command continues it"
    return print_training(found, json, done, stopped)
