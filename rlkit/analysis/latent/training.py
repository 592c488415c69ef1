"""Training and evaluation of latent models without an agent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import get_device

from rlkit.analysis.latent.frames import held_out_frames, training_frames
from rlkit.analysis.latent.report import write_report
from rlkit.experiment.folders import RECIPE, data_folder, free_folder
from rlkit.experiment.progress import ProgressReport
from rlkit.experiment.recipe import named_table, parse_setting
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import EventFile
from rlkit.io.atomic_write import replace_file
from rlkit.io.checkpoint import load_latest
from rlkit.latents import LATENTS, FittedLatent
from rlkit.trust import require_trusted
from rlkit.vec.vec_env import MakeEnv

LATENT, TRAINING = "latent", "training.json"
_POINTS = 200  # of each curve


def train_latent(
    name: str,
    data: str,
    make: MakeEnv,
    folder: Path | None = None,
    *,
    settings: Iterable[str] = (),
    count: int | None = None,
    steps: int = 5_000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Fits a latent model to frames, saves it and evaluates it on held-out ones.

    Args:
        name: Of the model: `vae`, `my_pkg.mod:Class`.
        data: As in `rlkit.analysis.latent.frames.training_frames`.
        make: Builds one environment from its id.
        folder: Where `latent/`, the report and TensorBoard's events go; without it
            `runs/out/latents/<data>/<name>-seed<S>`.
        settings: The model's, as `"key=value"`.
        count: How many frames, at most.
        steps: Gradient steps.
        batch_size: Frames per step.
        learning_rate: Adam's.
        seed: Of the frames, the first parameters and the batches.
        device: Of the computation; by default a GPU if there is one.

    Returns:
        The report, the folder, and the settings under `training`.

    Raises:
        ValueError: If the folder holds a latent, or model, settings or data are wrong; nothing is
            written then.
    """
    path = folder or free_folder(data_folder("latents", data, f"{name}-seed{seed}"))
    if (path / LATENT).exists():
        raise ValueError(f"{path} already holds a latent; choose another folder with --out")
    chosen = map(parse_setting, settings)
    model = LATENTS.make(named_table(name, chosen, "a latent model; write dims=8, say"))
    train = training_frames(data, make, count, seed)
    held_out = held_out_frames(data, make, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shaped = model.with_shape(train.images.shape[1:])
    latent = FittedLatent(shaped, generator, get_device(device))
    fit = latent.fit(
        train.images,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        generator=generator,
        next_rows=train.next_rows,
    )
    path.mkdir(parents=True, exist_ok=True)
    at_once = hasattr(latent.model, "solve")
    seconds = _run(fit, 1 if at_once else steps, path)
    latent.save(path / LATENT)
    facts = {
        "data": data,
        "frames": len(train),
        "steps": latent.steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": str(latent.device),
        "seconds": round(seconds, 2),
    }
    replace_file(path / TRAINING, json.dumps(facts, indent=1).encode() + b"\n")
    return {"folder": str(path), **write_report(path, latent, held_out), "training": facts}


def report_latent(
    folder: Path,
    data: str,
    make: MakeEnv,
    out: Path | None = None,
    *,
    count: int = 2_000,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Evaluates a saved latent model on held-out frames.

    Args:
        folder: What `train_latent` made, a folder that `FittedLatent.save` wrote, or an agent's
            run, whose newest checkpoint is taken.
        data: As in `rlkit.analysis.latent.frames.held_out_frames`.
        make: Builds one environment from its id.
        out: Where the report goes; the folder by default, if it is not the latent's own, and for a
            run the folder `latent` in it.
        count: How many frames.
        seed: Of an environment's frames.
        device: Of the computation.

    Returns:
        The report, and its folder.

    Raises:
        ValueError: If there is no latent, or the frames have another shape.
    """
    if (folder / RECIPE).is_file():
        latent, usual = agents_latent(folder, get_device(device)), folder / LATENT
    else:
        inside = (folder / LATENT).is_dir()
        latent = FittedLatent.load(folder / LATENT if inside else folder, get_device(device))
        if out is None and not inside:
            raise ValueError(f"{folder} is a latent's own folder; choose another with --out FOLDER")
        usual = folder
    found = held_out_frames(data, make, count, seed)
    path = out or usual
    return {"folder": str(path), **write_report(path, latent, found)}


def agents_latent(run: Path, device: Any = "cpu", *, trust: bool = False) -> FittedLatent:
    """The latent model of an agent, from the newest checkpoint of its run.

    Args:
        run: The run's folder.
        device: Of the parameters.
        trust: Whether the checkpoint may name any class, which is then imported.

    Raises:
        UntrustedError: If it names a class that is not installed and is not trusted.
        ValueError: If the run has no checkpoint, or its agent no latent model.
    """
    found = load_latest(RunFolder.open(run).checkpoints)
    if found is None:
        raise ValueError(f"{run} has no checkpoint yet; let it train on, or resume it")
    state = found[1]["training"].get("latent", {})
    if "model" not in state:
        raise ValueError(
            f"the agent of {run} has no latent model; train one with --set agent_options.latent=vae"
        )
    require_trusted(state["model"], run, trust=trust)
    return FittedLatent.from_state(state, device)


def describe_report(found: dict[str, Any]) -> str:
    """A report in a few lines of text."""
    facts = []
    if found["error"] is not None:
        facts.append(
            f"held-out error {found['error']:.5f} per number, {found['explained']:.1%} of the "
            f"images' variance explained"
        )
    if found["active_units"] is not None:
        dims = len(found["kl_per_dim"])
        facts.append(f"{found['active_units']} of {dims} dimensions active")
    lines = ["; ".join(facts)] if facts else []
    for name, factor in found["factors"].items():
        if factor["linear_r2"]:
            linear, near = (min(factor[f"{probe}_r2"]) for probe in ("linear", "neighbour"))
            lines.append(
                f"{name}: R2 at least {linear:.3f} by a linear probe, {near:.3f} by neighbours; "
                f"distances correlate {_shown(factor['distance_correlation'])}"
            )
    encoding = found["encoding"]
    lines.append(
        f"encodes {encoding['frames_per_s']:,} frames/s, its network alone "
        f"{encoding['network_frames_per_s']:,}"
    )
    return "\n".join(lines)


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _run(fit: Any, steps: int, path: Path) -> float:
    """Runs a fit to its end; returns the seconds that it took."""
    began = time.monotonic()
    events = EventFile(path)
    every = max(1, steps // _POINTS)
    with ProgressReport(steps) as progress:
        for step, metrics in enumerate(fit, 1):
            progress.update(step)
            if step % every == 0 or step == 1:
                curves = {f"latent/{name}": value for name, value in metrics.items()}
                events.write(curves, {}, step)
    events.sync()
    events.close()
    return time.monotonic() - began
