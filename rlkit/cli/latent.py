"""The commands `rlkit latent`: train latent models, and evaluate them.

Imports wait until a command needs them, so that help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from rlkit.cli.console import (
    Fit,
    FitOptions,
    Folder,
    Json,
    Number,
    Settings,
    Trust,
    env_maker,
    print_report,
    quiet_output,
    trusting,
)
from rlkit.cli.words import Commands

Data = Annotated[str, arg(metavar="ID_OR_PATH")]
FIT = FitOptions()


@trusting
def train(
    model: Annotated[str, Positional, arg(metavar="MODEL")],
    data: Data,
    frames: Number = None,
    fit: Fit = FIT,
    seed: int = 0,
    out: Folder = None,
    settings: Settings = (),
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train a latent model on images, save it and evaluate it.

    Args:
        model: Name of a latent model (see `rlkit list latents`), or my_pkg.mod:Class.
        data: Id of an environment with image observations, .npy file, folder of PNG files, or run.
        frames: Number of frames at most; by default 20,000 of an environment, all of a file.
        fit: Gradient steps.
        seed: Seed of everything random.
        out: Folder for latent/ and the report; by default runs/out/latents/<data>/<model>.
        settings: A setting of the model, such as dims=8.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.analysis.latent import training

    with quiet_output(json):
        found = training.train_latent(
            model,
            data,
            env_maker(),
            out,
            settings=settings,
            count=frames,
            steps=fit.steps,
            batch_size=fit.batch_size,
            learning_rate=fit.learning_rate,
            seed=seed,
        )
    return _print(found, json)


@trusting
def report(
    folder: Annotated[Path, Positional, arg(metavar="FOLDER")],
    data: Data,
    frames: int = 2_000,
    out: Folder = None,
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Evaluate a trained latent model: report.json, figures, TensorBoard.

    Args:
        folder: Folder written by `rlkit latent train`, or the run of an agent with a latent model.
        data: Id of an environment with image observations, .npy file, folder of PNG files, or run.
        frames: Number of frames at most.
        out: Folder for the report; by default FOLDER, or FOLDER/latent of a run.
        trust: Let files name any class or environment, which is then imported and run.
        json: Print one JSON object on standard output and nothing else.
    """
    from rlkit.analysis.latent import training

    with quiet_output(json):
        found = training.report_latent(folder, data, env_maker(), out, count=frames)
    return _print(found, json)


COMMANDS: Commands = {"train": train, "report": report}


def _print(report: dict[str, Any], json: bool) -> int:
    from rlkit.analysis.latent.training import describe_report

    return print_report(report, describe_report(report), json)
