"""Data for world models from any source, in three parts: to fit, recalibrate, and score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device

from rlkit.analysis.latent.training import LATENT, agents_latent
from rlkit.analysis.world.collect import gather_episodes
from rlkit.analysis.world.replay import replay_episodes
from rlkit.experiment.folders import RECIPE
from rlkit.experiment.recipe import parse_setting
from rlkit.latents import FittedLatent
from rlkit.vec.vec_env import MakeEnv
from rlkit.world import Episodes, Layout
from rlkit.world.data.minari import read_minari
from rlkit.world.data.series import read_csv
from rlkit.world.data.synthetic import driven_tanks
from rlkit.world.scaling import Standard

TANKS, MINARI = "tanks", "minari:"
TANK_NAMES = ("level 1 in cm", "level 2 in cm", "temperature 2 in °C")
_TANK_STEPS = 500  # of one episode, about as long as ten switches of a driver take
_HELD_OUT = 0.2  # of the whole for scoring, then of the rest for recalibration
_MANY = 10  # episodes; fewer are split by time
_LEAST = 4  # the held-out parts of what is gathered are a quarter of the training part


@dataclass(frozen=True)
class Source:
    """A source of data.

    Attributes:
        data: Id of an environment; folder of a run; `.csv` file; `tanks`; folder of a Minari data
            set, or `minari:` and its name.
        gather: Steps to gather in an environment, or of the tanks, to fit to.
        correlated: Share of an environment's episodes in which random actions are correlated.
        targets: Columns of a `.csv` file to forecast.
        drivers: Columns that are known ahead.
        time: Column of times.
        latent: Folder of a latent model that encodes images, from `rlkit latent train`, or an
            agent's run.
        env_options: Keyword arguments of the environment.
    """

    data: str
    gather: int = 20_000
    correlated: float = 0.5
    targets: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    time: str | None = None
    latent: str | None = None
    env_options: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class WorldData:
    """Data in three parts that share no episode, or no time of a series.

    Attributes:
        training: What models are fitted to.
        validation: What intervals are recalibrated on.
        test: What is scored.
        layout: Which columns are what.
        names: Of an observation's columns.
        latent: Encoded images and decodes them; None without images.
    """

    training: Episodes
    validation: Episodes
    test: Episodes
    layout: Layout
    names: tuple[str, ...]
    latent: FittedLatent | None = None

    def fingerprint(self) -> str:
        """A hash of the training part."""
        total = hashlib.sha256(self.training.spans.tobytes())
        for name in ("observation", "action"):
            for rows in self.training.chunks(name):
                total.update(np.ascontiguousarray(rows).tobytes())
        return total.hexdigest()


def load_data(source: Source, make: MakeEnv, seed: int = 0) -> WorldData:
    """Reads or collects data.

    Collected data have other seeds in each part. Stored data are split independently of the seed:
    by episode, or, of a series or a few episodes, by time.

    Args:
        source: The source.
        make: Builds one environment from its id.
        seed: Of collected data.

    Raises:
        ValueError: If there are none, or too few, or they are not finite.
    """
    if source.gather < 1:
        raise ValueError(f"steps to gather must be >= 1, got {source.gather}")
    latent = None if source.latent is None else _latent(Path(source.latent))
    path = Path(source.data)
    if source.data == TANKS:
        _require_none(source, latent)
        return _tanks(source.gather, seed)
    if path.suffix == ".csv":
        _require_none(source, latent)
        return _table(path, source)
    if (path / RECIPE).is_file():
        episodes, layout, names, seeing = replay_episodes(path, make, latent)
        return _split(episodes, layout, names, seeing)
    if path.is_dir() or source.data.startswith(MINARI):
        _require_none(source, latent)
        episodes, layout = read_minari(path if path.is_dir() else source.data[len(MINARI) :])
        return _split(episodes, layout, tuple(f"column {i}" for i in range(layout.observation)))
    return _environment(source, make, latent, seed)


def split_settings(settings: Iterable[str]) -> tuple[dict[str, Any], list[tuple[list[str], Any]]]:
    """The environment's options among settings `"key=value"`, and the others with their keys."""
    options: dict[str, Any] = {}
    others = []
    for setting in settings:
        keys, value = parse_setting(setting)
        if keys[0] == "env_options" and len(keys) == 2:
            options[keys[1]] = value
        else:
            others.append((keys, value))
    return options, others


def deviations(data: Episodes) -> NDArray[np.float64]:
    """Standard deviation of each column of the observations `(F,)`; 0 where it never varies."""
    width = data.observation.shape[1]
    return Standard.of(data.chunks("observation"), width).deviation.double().numpy()


def _environment(
    source: Source, make: MakeEnv, latent: FittedLatent | None, seed: int
) -> WorldData:
    parts = []
    for part, steps in enumerate((source.gather, *[-(-source.gather // _LEAST)] * 2)):
        mixed = np.random.SeedSequence((seed, part)).generate_state(1)[0]
        found, layout, names = gather_episodes(
            source.data,
            make,
            steps,
            int(mixed) % 2**31,
            correlated=source.correlated,
            latent=latent,
            arguments=source.env_options,
        )
        parts.append(found)
    training, validation, test = parts
    return WorldData(training, validation, test, layout, names, latent)


def _tanks(steps: int, seed: int) -> WorldData:
    def part(index: int, steps: int) -> Episodes:
        rng = np.random.default_rng((seed, index))
        count = -(-steps // _TANK_STEPS)
        return driven_tanks(rng, episodes=count, steps=-(-steps // count))

    held_out = -(-steps // _LEAST)
    parts = (part(0, steps), part(1, held_out), part(2, held_out))
    return WorldData(*parts, Layout(3, 2), TANK_NAMES)


def _table(path: Path, source: Source) -> WorldData:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path")
    if not source.targets:
        raise ValueError(f"name the columns of {path} to forecast: --targets A B")
    series = read_csv(path, source.targets, source.drivers, time=source.time)
    layout = Layout(len(series.targets), len(series.drivers))
    return _split(series.episodes, layout, series.targets)


def _split(
    episodes: Episodes, layout: Layout, names: tuple[str, ...], latent: FittedLatent | None = None
) -> WorldData:
    if len(episodes) >= _MANY:
        generator = torch.Generator().manual_seed(0)
        rest, test = episodes.split(_HELD_OUT, generator)
        training, validation = rest.split(_HELD_OUT, generator)
    else:
        rest, test = episodes.split_time(_HELD_OUT)
        training, validation = rest.split_time(_HELD_OUT)
    return WorldData(training, validation, test, layout, names, latent)


def _latent(folder: Path) -> FittedLatent:
    device = get_device("auto")
    if (folder / RECIPE).is_file():
        return agents_latent(folder, device)
    return FittedLatent.load(folder / LATENT if (folder / LATENT).is_dir() else folder, device)


def _require_none(source: Source, latent: FittedLatent | None) -> None:
    if latent is not None:
        raise ValueError(f"{source.data} holds no images for a latent model; leave --latent out")
