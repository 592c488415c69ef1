"""Candidates of a benchmark: saved worlds, models to fit, baselines, controls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device

from rlkit.analysis.world.data import WorldData
from rlkit.analysis.world.training import Fitting, load_world
from rlkit.experiment.progress import ProgressReport
from rlkit.world import WORLDS, ForecastWindows, Layout, World, WorldModel
from rlkit.world.forecasters.arima import ARIMA, sarima
from rlkit.world.forecasters.autoregression import ar, arx
from rlkit.world.forecasters.baselines import Forecaster, linear_trend, persistence
from rlkit.world.forecasters.tank_filter import TankFilter

Array = NDArray[Any]
MODEL, BASELINE, CONTROL = "model", "baseline", "control"
PERSISTENCE, ARX, LINEAR = "persistence", "arx", "linear"
FROZEN_CORE = "frozen"  # the field of a recurrent model that keeps its core random
_BASELINES: dict[str, Callable[..., Forecaster]] = {
    PERSISTENCE: persistence,
    "trend": linear_trend,
    "ar": ar,
    ARX: arx,
    "arima": ARIMA,
    "sarima": sarima,
    "tank_filter": TankFilter,
}
_WITH_HORIZON = (PERSISTENCE, "trend")


class FittedCandidate(Protocol):
    """A fitted forecaster and the cost of its fit."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the fit, as JSON values; `training_s` among them, None if unknown."""

    def forecast(self, windows: ForecastWindows, samples: int, seed: int) -> Array:
        """Samples `(S, B, H, F)` in raw units; some may not be finite."""


@dataclass(frozen=True)
class Candidate:
    """A forecaster to score.

    Attributes:
        name: For tables and figures.
        role: `"model"`, `"baseline"` or `"control"`.
        context: Steps of context that it needs.
        fit: `(data, horizon, seed) -> Fitted`, reading the training part alone.
    """

    name: str
    role: str
    context: int
    fit: Callable[[WorldData, int, int], FittedCandidate]


@dataclass(frozen=True)
class FittedWorld:
    """A world; see `Fitted`."""

    world: World
    facts: dict[str, Any]

    def forecast(self, windows: ForecastWindows, samples: int, seed: int) -> Array:
        """Samples `(S, B, H, F)`; see `Fitted`."""
        return self.world.forecast(
            windows.context_observation,
            windows.context_action,
            windows.future_action,
            samples=samples,
            generator=torch.Generator().manual_seed(seed),
            strict=False,
        )


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline; see `Fitted`."""

    baseline: Forecaster
    facts: dict[str, Any]

    def forecast(self, windows: ForecastWindows, samples: int, seed: int) -> Array:
        """Samples `(S, B, H, F)`; see `Fitted`."""
        return self.baseline.forecast(windows, samples, np.random.default_rng(seed))


def make_candidates(
    names: Sequence[str],
    fitting: Fitting,
    settings: Iterable[tuple[list[str], Any]] = (),
    *,
    controls: bool = True,
) -> list[Candidate]:
    """The named candidates, then the controls that are not among them.

    Controls are persistence, ARX, linear dynamics, and a copy with a random core of every model
    whose recurrent core can be frozen.

    Args:
        names: Folders of worlds, names of models, `"package.module:Class"`, or baselines. A name
            before `=` allows the same model with other settings: `"three=ensemble"`.
        fitting: How models are fitted.
        settings: Keys and values, the first key a candidate's name: `ensemble.members`.
        controls: Whether controls are added.

    Raises:
        ValueError: If a name or a setting is unknown, or named twice.
    """
    labels = [_label(name) for name in names]
    known = [label for label, _ in labels]
    tables: dict[str, dict[str, Any]] = {}
    for keys, value in settings:
        if len(keys) != 2 or keys[0] not in known:
            raise ValueError(
                f"{'.'.join(keys)!r} sets nothing of {', '.join(known)}; write NAME.key=value, "
                f"as in ensemble.members=3"
            )
        tables.setdefault(keys[0], {})[keys[1]] = value
    if len(set(known)) < len(known) or not names:
        raise ValueError(
            f"name one model or more, and each once, got {list(names)}; the same with other "
            f"settings needs a name of its own, as in three=ensemble"
        )
    found: list[Candidate] = []
    for label, what in labels:
        found += _named(label, what, fitting, tables.get(label, {}), controls)
    if controls:
        for name in (PERSISTENCE, ARX):
            if name not in known:
                found.append(_baseline(name, name, {}, CONTROL))
        if LINEAR not in known:
            found.append(_model(LINEAR, WORLDS.make(LINEAR), Fitting(), CONTROL))
    return found


def _label(name: str) -> tuple[str, str]:
    """A candidate's name, and what it is."""
    if Path(name).is_dir():
        return Path(name).name, name
    label, _, what = name.rpartition("=")
    if label in (*_BASELINES, LINEAR):
        raise ValueError(f"{name!r} has the name of the baseline {label}; choose another")
    return label or name, what


def _named(
    label: str, what: str, fitting: Fitting, settings: dict[str, Any], controls: bool
) -> list[Candidate]:
    if Path(what).is_dir():
        if settings:
            raise ValueError(f"{what} is fitted already, it takes no settings {settings}")
        world, facts = load_world(Path(what))
        try:
            fit = Fitting(**facts.get("fitting", {}))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"training.json in {what} is damaged: {error}") from error
        return [_saved(label, world, facts), *_frozen(label, world.model, fit, controls)]
    if what in _BASELINES:
        return [_baseline(label, what, settings, BASELINE)]
    try:
        model = WORLDS.make({"name": what, **settings})
    except ValueError as error:
        if what in WORLDS.names() or ":" in what:
            raise
        raise ValueError(
            f"{error} Baselines: {', '.join(_BASELINES)}. A fitted world is named by its folder, "
            f"and there is none at {what!r}"
        ) from None
    return [_model(label, model, fitting, MODEL), *_frozen(label, model, fitting, controls)]


def _frozen(name: str, model: WorldModel, fitting: Fitting, controls: bool) -> list[Candidate]:
    """The same model with a random core that is never trained, where it has one."""
    if not controls or getattr(model, FROZEN_CORE, None) is not False:
        return []
    changes: dict[str, Any] = {FROZEN_CORE: True, "widths": None}
    control = dataclasses.replace(model, **changes)  # type: ignore[type-var]
    return [_model(f"{name}, random core", control, fitting, CONTROL)]


def _saved(label: str, world: World, facts: dict[str, Any]) -> Candidate:
    known = {
        "training_s": facts.get("outcome", {}).get("seconds"),
        "steps": world.steps,
        "parameters": world.size,
    }

    def fit(data: WorldData, horizon: int, seed: int) -> FittedCandidate:
        ours, theirs = world.layout, data.layout
        for one, other in zip(_columns(ours), _columns(theirs), strict=True):
            if one != other:
                raise ValueError(
                    f"{label} is a world of {one}, the data have {other}; score it on data like "
                    f"those it was fitted to"
                )
        return FittedWorld(world, known)

    return Candidate(label, MODEL, 0, fit)


def _columns(layout: Layout) -> tuple[str, str]:
    """What has to agree, for a message."""
    widths = f"{layout.observation} columns and {layout.action} of actions"
    return widths, f"achieved goals in columns {layout.achieved}"


def _model(name: str, model: WorldModel, fitting: Fitting, role: str) -> Candidate:
    def fit(data: WorldData, horizon: int, seed: int) -> FittedCandidate:
        generator = torch.Generator().manual_seed(seed)
        began = time.perf_counter()
        world = World(model, data.layout, generator, get_device(fitting.device))
        with ProgressReport(fitting.total(world)) as progress:
            progress.print(f"fitting {name}, seed {seed}")
            for _ in fitting.iterate(world, data, generator):
                progress.update(world.steps)
        seconds = time.perf_counter() - began
        facts = {"training_s": seconds, "steps": world.steps, "parameters": world.size}
        return FittedWorld(world, facts)

    return Candidate(name, role, 0, fit)


def _baseline(label: str, name: str, settings: dict[str, Any], role: str) -> Candidate:
    def made(**more: Any) -> Forecaster:
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        try:
            return _BASELINES[name](**lists, **more)
        except TypeError as error:
            example = "; set --set sarima.period=24" if name == "sarima" else ""
            raise ValueError(f"{name} cannot be made of {settings}: {error}{example}") from error

    def fit(data: WorldData, horizon: int, seed: int) -> FittedCandidate:
        baseline = made(horizon=horizon) if name in _WITH_HORIZON else made()
        began = time.perf_counter()
        baseline.fit(data.training)
        return FittedBaseline(baseline, {"training_s": time.perf_counter() - began})

    return Candidate(label, role, made().context, fit)
