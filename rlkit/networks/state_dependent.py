"""A Gaussian policy whose noise is a function of the state: one random matrix times features.

Source: Raffin, Kober and Stulp 2021, "Smooth Exploration for Robotic Reinforcement Learning",
sections 3.2 and 3.3 (gSDE); the defaults are those of Stable-Baselines3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlkit.networks.mlp import Mlp, Parametric

LEAST_VARIANCE = 1e-6  # also of expln, as in SB3


@dataclass(frozen=True)
class StateDependentHead(Parametric):
    """Perceptron whose last hidden layer is the features of mean and noise.

    Attributes:
        inputs: Width of each input part.
        hidden: Width of each hidden layer, at least one; the last one is H.
        outputs: Width of the action, A.
        activation: As of `Mlp`.
        log_std_init: Logarithm of the noise's deviation to start from.
        use_expln: Whether a deviation grows only logarithmically above 1.
        clip_mean: Largest mean before squashing; 0 does not clip.
        fourier, fourier_scale: As of `Mlp`.
    """

    inputs: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    activation: str | type[Any] = "relu"
    log_std_init: float = -3.0
    use_expln: bool = False
    clip_mean: float = 2.0
    fourier: int = 0
    fourier_scale: float = 0.001

    def __post_init__(self) -> None:
        """Computes what a compiled graph could not."""
        _ = self.trunk.size

    @cached_property
    def trunk(self) -> Mlp:
        """Everything before the activation of the last hidden layer."""
        return Mlp(
            self.inputs,
            self.hidden[:-1],
            self.hidden[-1],
            activation=self.activation,
            fourier=self.fourier,
            fourier_scale=self.fourier_scale,
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter; the deviations come last."""
        width = self.hidden[-1]
        return {
            **{f"trunk.{name}": shape for name, shape in self.trunk.shapes().items()},
            "mean.weight": (width, self.outputs),
            "mean.bias": (self.outputs,),
            "log_std": (width, self.outputs),
        }

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values, uniform within one over the root of the fan-in; equal deviations."""
        trunk = {name: views[f"trunk.{name}"] for name in self.trunk.shapes()}
        self.trunk.fill(trunk, generator)
        bound = 1 / math.sqrt(self.hidden[-1])
        for name in ("mean.weight", "mean.bias"):
            views[name].uniform_(-bound, bound, generator=generator)
        views["log_std"].fill_(self.log_std_init)

    def __call__(self, vector: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Means and features `(1, B, A + H)` for inputs `(B, inputs[i])` each."""
        own = self.trunk.size
        features = self.trunk.activate(self.trunk(vector[:own], parts)[0])
        p = self.views(vector)
        mean = features @ p["mean.weight"] + p["mean.bias"]
        if self.clip_mean > 0:
            mean = mean.clamp(-self.clip_mean, self.clip_mean)
        return torch.cat([mean, features], dim=-1).unsqueeze(0)

    def deviations(self, vector: Tensor) -> Tensor:
        """Deviations of the noise matrix's entries `(H, A)`.

        Args:
            vector: Parameters that end with this head's.
        """
        size = self.hidden[-1] * self.outputs
        log_std = vector[-size:].view(self.hidden[-1], self.outputs)
        if not self.use_expln:
            return log_std.exp()
        above = log_std.clamp(min=0)
        return torch.where(log_std > 0, torch.log1p(above + LEAST_VARIANCE) + 1, log_std.exp())

    def distribution(self, outputs: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, deviation `(B, A)` and features `(B, H)` of what `__call__` gave, `(B, A + H)`."""
        mean, features = outputs[:, : self.outputs], outputs[:, self.outputs :]
        variance = features**2 @ deviations**2
        return mean, (variance + LEAST_VARIANCE).sqrt(), features
