"""Trains world models without an agent; interrupted trainings continue exactly."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.utils import get_device

from rlkit.analysis.world.data import Source, WorldData, load_data, split_settings
from rlkit.experiment.folders import data_folder, numbered
from rlkit.experiment.progress import ProgressReport
from rlkit.experiment.recipe import named_table
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import EventFile, rewind
from rlkit.experiment.stop_requests import NotHeeded, StopRequest, stop_requests
from rlkit.io.atomic_write import replace_file
from rlkit.io.checkpoint import load_latest, prune, write_checkpoint
from rlkit.vec.vec_env import MakeEnv
from rlkit.world import WORLDS, World

WORLD, TRAINING, CHECKPOINTS = "world", "training.json", "checkpoints"
_POINTS = 200  # of each curve


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted; see `rlkit.world.World.fit`.

    Attributes:
        steps: Gradient steps.
        batch_size: Records per step.
        learning_rate: Adam's.
        device: Where it is computed; a GPU if there is one by default.
    """

    steps: int = 5_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    device: str = "auto"

    def iterate(self, world: World, data: WorldData, generator: torch.Generator) -> Any:
        """The steps that are left, as `World.fit` yields them."""
        return world.fit(
            data.training,
            steps=self.total(world) - world.steps,
            records=self.batch_size,
            learning_rate=self.learning_rate,
            generator=generator,
        )

    def total(self, world: World) -> int:
        """How many steps there are in all; a closed form takes one."""
        return 1 if hasattr(world.model, "solve") else self.steps


def train_world(
    name: str,
    source: Source,
    make: MakeEnv,
    folder: Path | None = None,
    *,
    settings: Iterable[str] = (),
    fitting: Fitting | None = None,
    seed: int = 0,
    save_every_s: float = 30.0,
) -> dict[str, Any]:
    """Fits a world model and saves it, or continues an interrupted fit.

    Args:
        name: Of the model: `ensemble`, `my_pkg.mod:Class`.
        source: The source of the data.
        make: Builds one environment from its id.
        folder: Where `world/`, `training.json` and TensorBoard's events go; without it
            `runs/out/worlds/<data>/<name>-seed<S>`. A training in it that was interrupted is
            continued bit for bit if its arguments were the same.
        settings: The model's as `"key=value"`, the environment's as `"env_options.key=value"`.
        fitting: How it is fitted.
        seed: Of gathered data, the first parameters and the batches.
        save_every_s: Seconds between checkpoints.

    Returns:
        What was done: the folder, seconds, held-out metrics, and under `stopped` the name of the
        signal that interrupted it, or None.

    Raises:
        ValueError: If the folder holds a world, or a training with other arguments or data; if
            model, settings or data are wrong. Nothing is written then.
    """
    fitting = fitting or Fitting()
    options, others = split_settings(settings)
    source = dataclasses.replace(source, env_options=source.env_options | options)
    model = WORLDS.make(named_table(name, others, "a world model; write members=3, for example"))
    arguments = {
        "model": WORLDS.describe(model),
        "source": source.plain(),
        "fitting": dataclasses.asdict(fitting),
        "seed": seed,
    }
    path = folder or _own_folder(name, source.data, seed, arguments)
    _require_fit(path, arguments)
    data = load_data(source, make, seed)
    arguments["training_data"] = data.fingerprint()
    _require_fit(path, arguments)
    generator = torch.Generator().manual_seed(seed)
    world = World(model, data.layout, generator, get_device(fitting.device))
    fitting.iterate(world, data, generator)  # starts nothing, but refuses unsuitable data
    path.mkdir(parents=True, exist_ok=True)
    with RunFolder(path).lock():
        replace_file(path / TRAINING, _json(arguments))
        seconds, stopped = _run(world, data, fitting, generator, path, save_every_s)
        facts: dict[str, Any] = {"steps": world.steps, "seconds": round(seconds, 3)}
        facts["stopped"] = stopped
        if stopped is None:
            held_out = world.evaluate(data.validation, generator)
            facts |= {"parameters": world.size, "held_out": held_out}
            # The world last: its folder marks a complete training.
            replace_file(path / TRAINING, _json({**arguments, "outcome": facts}))
            world.save(path / WORLD)
            shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)
    return {"folder": str(path), **arguments, **facts}


def load_world(folder: Path, device: str = "auto") -> tuple[World, dict[str, Any]]:
    """A world that `train_world` or `World.save` wrote, and the content of its `training.json`.

    Raises:
        ValueError: If there is none.
    """
    inside = (folder / WORLD).is_dir()
    if not inside and (folder / TRAINING).is_file():
        raise ValueError(f"the training in {folder} is not finished; the same command continues it")
    world = World.load(folder / WORLD if inside else folder, get_device(device))
    return world, _begun(folder) if inside else {}


def _run(
    world: World,
    data: WorldData,
    fitting: Fitting,
    generator: torch.Generator,
    path: Path,
    save_every_s: float,
) -> tuple[float, str | None]:
    """Runs a fit from its newest checkpoint on: seconds in all, and what stopped it."""
    saved = load_latest(path / CHECKPOINTS)
    earlier = 0.0
    if saved is not None:
        world.load_state_dict(saved[1]["world"])
        generator.set_state(saved[1]["generator"])
        earlier = saved[1]["seconds"]
    rewind(path, world.steps if saved else -1)
    total = fitting.total(world)
    if world.steps >= total:
        return earlier, None
    every = max(1, total // _POINTS)
    events = EventFile(path)
    began = kept = time.monotonic()

    def save(stop: StopRequest) -> None:
        stop.heeded()
        events.sync()
        state = {
            "world": world.state_dict(),
            "generator": generator.get_state(),
            "seconds": earlier + time.monotonic() - began,
        }
        write_checkpoint(path / CHECKPOINTS / f"step-{world.steps}", state)
        prune(path / CHECKPOINTS, newest=world.steps)

    stop = StopRequest()
    try:
        with ProgressReport(total, world.steps) as progress, stop_requests(stop):
            for metrics in fitting.iterate(world, data, generator):
                step = world.steps
                progress.update(step)
                if step % every == 0 or step == 1:
                    curves = {f"world/{name}": value for name, value in metrics.items()}
                    events.write(curves, {}, step)
                if stop.is_set() and step < total:
                    save(stop)
                    return earlier + time.monotonic() - began, stop.reason
                if time.monotonic() - kept >= save_every_s and step < total:
                    save(stop)
                    kept = time.monotonic()
    except NotHeeded:  # a step took too long: the newest checkpoint is what there is
        return earlier + time.monotonic() - began, stop.reason
    finally:
        events.sync()
        events.close()
    return earlier + time.monotonic() - began, None


def _require_fit(path: Path, arguments: dict[str, Any]) -> None:
    if (path / WORLD).exists():
        raise ValueError(f"{path} already holds a world; choose another folder with --out")
    for key, before in _begun(path).items():
        if key in arguments and arguments[key] != before:
            what = "data" if key == "training_data" else key
            raise ValueError(
                f"{path} holds a training that began with {what} {before}, not {arguments[key]}: "
                f"repeat its command to continue it, or choose another folder with --out"
            )


def _begun(path: Path) -> dict[str, Any]:
    file = path / TRAINING
    try:
        found: Any = json.loads(file.read_bytes()) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: it holds no JSON object")
    return found


def _own_folder(name: str, data: str, seed: int, arguments: dict[str, Any]) -> Path:
    """A free folder, or that of the same interrupted training."""

    def is_own(path: Path) -> bool:
        begun = _begun(path)
        return not (path / WORLD).exists() and begun | arguments == begun

    folders = numbered(data_folder("worlds", data, f"{name}-seed{seed}"))
    return next(path for path in folders if not path.exists() or is_own(path))


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"
