"""Linear dynamics, the control for learned models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.networks.fields import is_number, require
from rlkit.world.contract import Metrics, Widths, Windows
from rlkit.world.models.densities import HALF_LOG_2PI
from rlkit.world.models.parametric import Markov, Sampling, Step, StepFunction

SMALLEST = 1e-4  # deviation of a residual, in deviations of its column


@dataclass(frozen=True)
class LinearDynamics(Markov):
    """An affine map of observation and action with a normal residual, by ridge regression.

    Residuals of different columns are correlated as in the data.

    Attributes:
        ridge: Penalty on squared weights, in units of one standardised record each, >= 0.
        widths: Set by `with_widths`.

    Raises:
        ValueError: If a field is out of its range.
    """

    ridge: float = 1e-3
    widths: Widths | None = None

    def __post_init__(self) -> None:
        require(self, "ridge", is_number(self.ridge, 0), "a number >= 0")

    def with_widths(self, widths: Widths) -> LinearDynamics:
        """The same model for other columns; see `WorldModel.with_widths`."""
        if widths.binary:
            raise ValueError(
                "LinearDynamics has no Bernoulli heads: declare no binary outcomes, or take "
                "an ensemble"
            )
        return replace(self, widths=widths)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        w = self.known
        return {
            "weight": (w.observation + w.action, w.target),
            "bias": (w.target,),
            "factor": (w.target, w.target),  # of the residual's covariance, lower triangular
        }

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Constant observations with unit noise."""
        views["weight"].zero_().fill_diagonal_(1.0)
        views["weight"][:, self.known.observation :].zero_()
        views["bias"].zero_()
        views["factor"].zero_().fill_diagonal_(1.0)

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """See `ParametricWorldModel.step_function`."""
        p, generator, temperature = self.views(vector), draw.generator, draw.temperature
        factor = p["factor"].tril()
        scale = factor.square().sum(1).sqrt()

        def step(hidden_state: HiddenState, action: Tensor) -> Step:
            mean = torch.cat([hidden_state[0], action], 1) @ p["weight"] + p["bias"]
            drawn = mean
            if temperature > 0:
                noise = torch.randn(mean.shape, generator=generator, device=generator.device)
                drawn = mean + temperature * noise.to(mean.device) @ factor.T
            after = (drawn[:, : self.known.observation],)
            return Step(drawn, mean, scale.expand_as(mean), after)

        return step

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood; see `WorldModel.loss`."""
        p = self.views(vector)
        x = torch.cat([windows.observation[:, :-1], windows.action], 2)
        residual = windows.target - (x @ p["weight"] + p["bias"])
        factor = p["factor"].tril()
        white = torch.linalg.solve_triangular(factor.mT, residual, upper=True, left=False)
        volume = factor.diagonal().abs().clamp(min=1e-12).log() + HALF_LOG_2PI
        nll = windows.mean(0.5 * white.square().sum(2) + volume.sum())
        error = windows.mean(residual.square().mean(2))
        return nll, {"nll": nll.detach(), "error": error.detach()}

    def solve(self, batches: Iterator[Windows]) -> Tensor:
        """The parameters for windows that hold every record once."""
        w = self.known
        inputs = w.observation + w.action + 1
        moments = torch.zeros(inputs + w.target, inputs + w.target).double()
        count = 0.0
        for windows in batches:
            counts = windows.counted.flatten() > 0
            x = torch.cat([windows.observation[:, :-1], windows.action], 2).flatten(0, 1)[counts]
            y = windows.target.flatten(0, 1)[counts]
            rows = torch.cat([x, x.new_ones(len(x), 1), y], 1).double().cpu()
            moments += rows.T @ rows
            count += len(rows)
        xx, xy, yy = moments[:inputs, :inputs], moments[:inputs, inputs:], moments[inputs:, inputs:]
        # Never 0: redundant columns have no unique solution.
        penalty = torch.full((inputs,), max(self.ridge, 1e-9 * count)).double()
        penalty[-1] = 0.0
        weight = torch.linalg.solve(xx + penalty.diag(), xy)
        cross = weight.T @ xy
        covariance = (yy - cross - cross.T + weight.T @ xx @ weight) / max(count - inputs, 1.0)
        floor = torch.eye(w.target).double() * SMALLEST**2
        vector = torch.empty(self.size)
        p = self.views(vector)
        p["weight"].copy_(weight[:-1])
        p["bias"].copy_(weight[-1])
        p["factor"].copy_(torch.linalg.cholesky(covariance + floor))
        return vector
