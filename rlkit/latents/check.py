"""Checks a latent model, ours or a user's, against the laws of latent models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlkit.latents.contract import Decoder, LatentModel, Metrics
from rlkit.networks import adam_state
from rlkit.networks.fit import descend
from rlkit.networks.laws import (
    changed,
    differ,
    not_lowered,
    unreached_parameters,
    wrong_loss,
    wrong_parameters,
)
from rlkit.plugins import law_in, run_laws

TOLERANCE = 1e-4
"""Largest difference between two ways to the same float32 numbers, where those are around 1."""
_differ = partial(differ, tolerance=TOLERANCE)
LATE = 10**9  # a step after the end of every schedule


class Observations:
    """A latent model with parameters and random observations, on which the laws are checked.

    Args:
        model: Configured; without a shape it is checked on `shape`.
        rows: B, >= 2.
        shape: Of one observation, where the model has none.
        seed: Of parameters and observations.
    """

    def __init__(
        self,
        model: LatentModel,
        rows: int = 6,
        shape: tuple[int, ...] = (32, 32, 3),
        seed: int = 0,
    ) -> None:
        self.shape = model.shape or shape
        self.model = model.with_shape(self.shape)
        self.generator = torch.Generator().manual_seed(seed)
        vector = self.model.initial_parameters(self.generator)
        # Fresh biases are zero, which would hide mistakes in them.
        self.vector = vector + 0.01 * self.normal(*vector.shape)
        self.of_images = len(self.shape) == 3
        self.x = self._observations(rows)
        self.z = self.normal(rows, self.model.dims)
        self.next_x = [self._observations(rows)] if getattr(model, "reads_next", False) else []

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator)

    def _observations(self, rows: int) -> Tensor:
        x = self.normal(rows, *self.shape)
        return (255 * x.sigmoid()).to(torch.uint8) if self.of_images else x

    def encode(self, x: Tensor) -> Tensor:
        """Mean and deviation of latents, side by side `(B, 2 D)`, without gradients."""
        with torch.no_grad():
            return torch.cat(self.model.encode(self.vector, x), 1)

    def decode(self, z: Tensor) -> Tensor | None:
        """The model's observations, without gradients; None for models without a decoder."""
        if not isinstance(self.model, Decoder):
            return None
        with torch.no_grad():
            return self.model.decode(self.vector, z)

    @property
    def ways(self) -> list[tuple[str, Callable[[Tensor], Tensor], Tensor]]:
        """What the model computes of rows: by name, the function and its rows."""
        ways: list[tuple[str, Any, Tensor]] = [("latents", self.encode, self.x)]
        if isinstance(self.model, Decoder):
            ways.append(("decoded", self.decode, self.z))
        return ways

    def loss(self, vector: Tensor, seed: int = 0) -> tuple[Tensor, Metrics]:
        """The loss at the end of all schedules."""
        generator = torch.Generator().manual_seed(seed)
        return self.model.loss(vector, self.x, generator, LATE, *self.next_x)


Law = Callable[[Observations], str | None]
LAWS: dict[str, Law] = {}


def check_latent(model: LatentModel, observations: Observations | None = None) -> None:
    """Checks the laws on random observations.

    Args:
        model: Configured, with or without a shape.
        observations: What to check it on; 6 of the model's shape by default, of 32-pixel images
            where it has none.

    Raises:
        ValueError: If a law is broken; the message names it and what differs.
    """
    case = Observations(model) if observations is None else observations
    run_laws(model, LAWS, case)


@law_in(LAWS, "it has the shapes that it promises")
def _has_the_shapes_it_promises(case: Observations) -> str | None:
    model, rows = case.model, len(case.x)
    if model.shape != case.shape:
        return f"with_shape({case.shape}) gave a model for {model.shape}"
    if wrong := wrong_parameters(model, case.vector):
        return wrong
    with torch.no_grad():
        mean, scale = model.encode(case.vector, case.x)
    found = {"mean": mean, "scale": scale}
    wanted = {"mean": (rows, model.dims), "scale": (rows, model.dims), "decoded": case.x.shape}
    if (y := case.decode(case.z)) is not None:
        found["decoded"] = y
    for name, value in found.items():
        if value.shape != wanted[name] or value.dtype != torch.float32:
            return f"{name} is {value.dtype} {tuple(value.shape)}, not float32 {wanted[name]}"
        if not value.isfinite().all():
            return f"{name} is not finite"
    return f"a deviation is {float(scale.min())}" if scale.min() < 0 else None


@law_in(LAWS, "images are bytes or floats in [0, 1]")
def _images_are_bytes_or_floats(case: Observations) -> str | None:
    if not case.of_images:
        return None
    shares = case.encode(case.x.float() / 255)
    if wrong := _differ(shares, case.encode(case.x), "latents of bytes and of the same in [0, 1]"):
        return wrong
    y = case.decode(10 * case.z)
    if y is None:
        return None
    if y.min() < 0 or y.max() > 1:
        return f"decoded images reach from {float(y.min()):.4g} to {float(y.max()):.4g}"
    return None


@law_in(LAWS, "it never writes to what it reads")
def _never_writes_to_what_it_reads(case: Observations) -> str | None:
    read = {"vector": case.vector, "x": case.x, "z": case.z}
    read |= dict(zip(["next_x"], case.next_x, strict=False))

    def call() -> None:
        case.encode(case.x), case.decode(case.z), case.loss(case.vector)
        if not case.of_images:
            case.encode(case.x.float())

    return changed(read, call)


@law_in(LAWS, "latents are the same every time")
def _latents_are_the_same_every_time(case: Observations) -> str | None:
    for name, function, rows in case.ways:
        if not torch.equal(function(rows), function(rows)):
            return f"{name} of the same rows differ between two calls"
    return None


@law_in(LAWS, "rows are separate")
def _rows_are_separate(case: Observations) -> str | None:
    for name, function, rows in case.ways:
        together = function(rows)
        for row in range(len(rows)):
            one = slice(row, row + 1)
            alone = f"{name} of row {row} alone and among others"
            if wrong := _differ(function(rows[one]), together[one], alone):
                return wrong
    return None


@law_in(LAWS, "a loss of neighbours reads them")
def _the_loss_reads_the_next_observations(case: Observations) -> str | None:
    if not case.next_x:
        return None
    before, _ = case.loss(case.vector)
    case.next_x = [part.flip(0) for part in case.next_x]
    after, _ = case.loss(case.vector)
    case.next_x = [part.flip(0) for part in case.next_x]
    return "it is the same whatever follows" if torch.equal(before, after) else None


@law_in(LAWS, "the loss follows its generator")
def _the_loss_follows_its_generator(case: Observations) -> str | None:
    metric = "reconstruction" if isinstance(case.model, Decoder) else None
    return wrong_loss(case.loss, case.vector, metric)


@law_in(LAWS, "gradients reach every parameter")
def _gradients_reach_every_parameter(case: Observations) -> str | None:
    if _solve_of(case.model) is not None:
        return None
    return unreached_parameters(case.model, case.loss, case.vector)


@law_in(LAWS, "fitting lowers the loss")
def _fitting_lowers_the_loss(case: Observations) -> str | None:
    solve = _solve_of(case.model)
    if solve is not None:
        after = solve(case.x)
    else:
        state = adam_state("vector", case.vector)
        fit = descend(
            state,
            lambda vector, seed, _: case.loss(vector, seed),
            range(100),
            model=case.model,
            learning_rate=3e-4,
        )
        for _ in fit:
            pass
        after = state["vector"]
    return not_lowered(lambda v, seed: float(case.loss(v, seed)[0]), case.vector, after)


def _solve_of(model: LatentModel) -> Callable[[Any], Tensor] | None:
    solve: Callable[[Any], Tensor] | None = getattr(model, "solve", None)
    return solve
