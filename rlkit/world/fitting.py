"""Fits a world to episodes: by gradient steps, or by the model's closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlkit.networks.fit import descend
from rlkit.world.contract import Metrics, Windows
from rlkit.world.data.windows import Episodes
from rlkit.world.scaling import Scaling

if TYPE_CHECKING:
    from rlkit.world.world import World

ADAPTED = 4096  # records by which scales are fitted before the first gradient step


@dataclass(frozen=True)
class Settings:
    """Settings of a fit; see `World.fit`."""

    steps: int
    records: int
    window: int
    learning_rate: float
    clip: float

    def __post_init__(self) -> None:
        for name in ("steps", "records", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


def fit(
    world: World, data: Episodes, scaling: Scaling, settings: Settings, generator: torch.Generator
) -> Iterator[Metrics]:
    """The metrics of each step, which is taken when they are read; see `World.fit`."""
    solve = getattr(world.model, "solve", None)
    if solve is not None:
        return _solve(world, solve, scaling, data, settings.window, generator)
    if not isinstance(world.parameters, Tensor):
        raise ValueError(
            f"{type(world.model).__name__} has no flat vector of parameters, which gradient steps "
            f"need, and no solve(batches)"
        )

    def sample(records: int) -> Windows:
        count, outcomes = max(records // settings.window, 1), world.layout.outcomes
        return scaling.windows(data.sample(count, settings.window, generator, outcomes))

    return _descend(world, scaling, sample, settings, generator)


def _solve(
    world: World,
    solve: Callable[[Iterator[Windows]], Any],
    scaling: Scaling,
    data: Episodes,
    window: int,
    generator: torch.Generator,
) -> Iterator[Metrics]:
    batches = data.in_order(window, world.layout.outcomes)
    parameters = solve(scaling.windows(one) for one in batches)
    world.scaling, world.state = scaling, world.state_of(parameters)
    world.steps += 1
    metrics = world.evaluate(data, generator, window)
    yield {name: torch.tensor(value) for name, value in metrics.items()}


def _descend(
    world: World,
    scaling: Scaling,
    sample: Callable[[int], Windows],
    settings: Settings,
    generator: torch.Generator,
) -> Iterator[Metrics]:
    world.scaling, model = scaling, world.model
    adapt = getattr(model, "adapt", None)
    if adapt is not None and world.steps == 0:
        world.state = world.state | {"vector": adapt(world.parameters, sample(ADAPTED))}
    steps = descend(
        world.state,
        lambda vector, windows, step: model.loss(vector, windows, generator, step),
        (sample(settings.records) for _ in range(settings.steps)),
        model=model,
        learning_rate=settings.learning_rate,
        start=world.steps,
        clip=settings.clip,
        onednn=world.onednn,
    )
    for metrics in steps:
        world.steps += 1
        yield metrics
