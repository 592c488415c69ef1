"""An ensemble of probabilistic perceptrons, whose disagreement measures uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.networks.fields import is_number, is_whole, require
from rlkit.world.contract import Metrics, Widths, Windows
from rlkit.world.models.densities import bounded, moments, negative_log_likelihood
from rlkit.world.models.parametric import Markov, Sampling, StepFunction

LOW, HIGH = -10.0, 0.5  # first bounds of a log-variance (Chua et al. 2018)
LEAST = -14.0  # of the lower bound: a column without errors must not dominate the loss
TIGHTENING = 1e-3  # weight of the distance between the bounds
PROPAGATIONS = ("fixed", "resampled", "mean")
POISSON = [sum(math.exp(-1) / math.factorial(k) for k in range(n + 1)) for n in range(6)]


@dataclass(frozen=True)
class Ensemble(Markov):
    """Perceptrons that each predict mean and deviation of the next change (PETS).

    Source: Chua et al. 2018: bootstrapped members, swish, learned bounds of the log-variance, a
    prediction of the change. Deliberately different: a column's error is weighed by its predicted
    variance (Seitzer et al. 2022), without which the likelihood neglects columns that are hard to
    predict.

    Attributes:
        members: E, networks, >= 1.
        hidden: Widths of their hidden layers.
        propagation: `"fixed"`: an imagined row keeps one member (TS infinity), chosen so that E
            consecutive rows have one each. `"resampled"`: a new one every step (TS1).
            `"mean"`: the mean of all members' predictions, at E times the cost.
        bootstrap: Whether each member has its own weights of the records, as if drawn with
            replacement; they depend only on the position of a record.
        decay: Penalty on the weights' squares, >= 0.
        beta: Power of the variance that weights errors, in [0, 1]; 0 is the plain likelihood.
        widths: Set by `with_widths`.

    Raises:
        ValueError: If a field is out of its range.
    """

    members: int = 5
    hidden: tuple[int, ...] = (128, 128)
    propagation: str = "fixed"
    bootstrap: bool = True
    decay: float = 1e-5
    beta: float = 0.5
    widths: Widths | None = None

    def __post_init__(self) -> None:
        require(self, "members", is_whole(self.members, 1), "a whole number >= 1")
        good = isinstance(self.hidden, tuple) and all(is_whole(width, 1) for width in self.hidden)
        require(self, "hidden", good, "a sequence of whole numbers >= 1")
        require(self, "propagation", self.propagation in PROPAGATIONS, f"one of {PROPAGATIONS}")
        require(self, "bootstrap", isinstance(self.bootstrap, bool), "true or false")
        require(self, "decay", is_number(self.decay, 0), "a number >= 0")
        require(self, "beta", is_number(self.beta, 0) and self.beta <= 1, "a number in [0, 1]")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        w, e = self.known, self.members
        layers = (w.observation + w.action, *self.hidden, 2 * w.target)
        shapes: dict[str, tuple[int, ...]] = {}
        for i, (before, after) in enumerate(pairwise(layers)):
            shapes[f"{i}.weight"], shapes[f"{i}.bias"] = (e, before, after), (e, 1, after)
        # The change in one step is small compared with the range of an observation.
        return shapes | {"log_change": (w.observation,), "low": (w.target,), "high": (w.target,)}

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values: weights uniform within 1 / sqrt(fan-in)."""
        for name, view in views.items():
            if name.endswith("weight"):
                bound = 1 / math.sqrt(view.shape[1])
                view.uniform_(-bound, bound, generator=generator)
            else:
                view.fill_({"low": LOW, "high": HIGH}.get(name, 0.0))

    def adapt(self, vector: Tensor, windows: Windows) -> Tensor:
        """The vector with the scale of changes in windows of data."""
        change = (windows.observation[:, 1:] - windows.observation[:, :-1]).square()
        size = torch.stack([windows.mean(column) for column in change.unbind(2)]).sqrt()
        adapted = vector.clone()
        self.views(adapted)["log_change"].copy_(size.clamp(min=1e-3).log())
        return adapted

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """See `ParametricWorldModel.step_function`."""
        p, width = self.views(vector), self.known.observation
        predict = self._predictor(p, len(start[0]), draw.generator)
        return lambda state, action: draw.step(*predict(state[0], action), width=width)

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood, a mean over members; see `WorldModel.loss`."""
        p = self.views(vector)
        x = windows.observation[:, :-1].flatten(0, 1)
        y = windows.target.flatten(0, 1)
        rows = torch.cat([x, windows.action.flatten(0, 1)], 1)
        mean, log_scale = self._predicted(p, x, rows.expand(self.members, -1, -1))
        counted = windows.counted.flatten()
        binary = self.binary(vector.device)
        each = negative_log_likelihood(y, mean, log_scale, binary)
        # In units of the change, in which outputs are around 1.
        relative = (2 * self.beta) * (log_scale.detach() - self._log_unit(p).detach())
        if binary is not None:
            relative = relative.masked_fill(binary, 0.0)
        weight = counted * self._weights(windows.position.flatten())
        total = (weight * (relative.exp() * each).sum(2)).sum()
        count = counted.sum().clamp(min=1)
        loss = total / (count * self.members)
        loss = loss + TIGHTENING * (p["high"] - p["low"]).sum() + self.decay * self._squares(p)
        with torch.no_grad():
            errors = (moments(mean.mean(0), y, binary)[0] - y).square().mean(1)
            error = (counted * errors).sum() / count
            nll = (counted * each.sum(2).mean(0)).sum() / count
        return loss, {"nll": nll, "error": error}

    def _predictor(
        self, p: dict[str, Tensor], count: int, generator: torch.Generator
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mean and deviation `(n, F + K)` for n observations and actions."""
        e = self.members
        groups = -(-count // e)

        def of_mean(x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            rows = torch.cat([x, action], 1).expand(e, -1, -1)
            means, log_scales = self._predicted(p, x, rows)
            spread = (2 * log_scales).exp().mean(0) + means.var(0, correction=0)
            return means.mean(0), spread.sqrt()

        def assigned() -> tuple[Tensor, Tensor]:
            """Which row each member takes `(E * groups,)`, and where each row is `(n,)`."""
            draw = torch.rand(groups, e, generator=generator, device=generator.device)
            member = draw.argsort(1).to(p["low"].device).flatten()[:count]
            place = member * groups + torch.arange(count, device=member.device) // e
            row = torch.zeros(e * groups, dtype=torch.long, device=member.device)
            row[place] = torch.arange(count, device=member.device)
            return row, place

        if self.propagation == "mean":
            return of_mean
        fixed = assigned() if self.propagation == "fixed" else None

        def of_one(x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            row, place = assigned() if fixed is None else fixed
            rows = torch.cat([x, action], 1).index_select(0, row).view(e, groups, -1)
            out = self._network(p, rows).view(e * groups, -1).index_select(0, place)
            mean, log_scale = self._prediction(p, x, out)
            return mean, log_scale.exp()

        return of_one

    def _predicted(self, p: dict[str, Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation `(E, n, F + K)` after `x (n, F)`, for inputs `(E, n, F + A)`."""
        return self._prediction(p, x, self._network(p, rows))

    def _network(self, p: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Outputs `(E, n, 2 (F + K))` of every member for inputs of its own `(E, n, F + A)`."""
        last = len(self.hidden)
        for i in range(last):
            rows = F.silu(torch.baddbmm(p[f"{i}.bias"], rows, p[f"{i}.weight"]))
        return torch.baddbmm(p[f"{last}.bias"], rows, p[f"{last}.weight"])

    def _prediction(self, p: dict[str, Tensor], x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation `(..., F + K)` of a network's outputs, after `x (n, F)`."""
        raw, log_variance = out.chunk(2, -1)
        low = p["low"].clamp(min=LEAST)
        log_unit = self._log_unit(p)
        before = F.pad(x, (0, self.known.outcome))
        mean = torch.addcmul(before, raw, log_unit.exp())
        return mean, 0.5 * bounded(log_variance, low, p["high"]) + log_unit

    def _log_unit(self, p: dict[str, Tensor]) -> Tensor:
        """The log-unit of outputs `(F + K,)`: a typical change; of outcomes their deviation."""
        return F.pad(p["log_change"], (0, self.known.outcome))

    def _squares(self, p: dict[str, Tensor]) -> Tensor:
        weights = [p[f"{i}.weight"].square().sum() for i in range(len(self.hidden) + 1)]
        return torch.stack(weights).sum() / self.members

    def _weights(self, position: Tensor) -> Tensor:
        """How often each member draws each record, `(n,) -> (E, n)`; without bootstrap 1."""
        if not self.bootstrap:
            return torch.ones(1, 1, device=position.device)
        member = torch.arange(1, self.members + 1, device=position.device)[:, None]
        # Poisson(1), the limit of drawing with replacement, by a hash of member and position.
        mixed = position * 0x9E3779B1 + member * 0x85EBCA6B
        for shift in (15, 13):
            mixed = ((mixed ^ (mixed >> shift)) * 0x2C1B3C6D) & 0xFFFFFFFF
        uniform = (mixed ^ (mixed >> 16)).double() / 2**32
        return torch.bucketize(uniform, torch.tensor(POISSON).to(uniform)).float()
