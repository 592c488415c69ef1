"""Recurrent dynamics with a mixture-density head, for steps with several possible outcomes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import HiddenState, SequenceEncoder
from rlkit.networks.fields import is_whole, require
from rlkit.networks.gradient import loop
from rlkit.world.contract import Metrics, Widths, Windows
from rlkit.world.models.densities import negative_log_likelihood, sample
from rlkit.world.models.parametric import Observed, Sampling, Step, StepFunction
from rlkit.world.models.recurrent import Core, RecurrentWorldModel, fresh_where
from rlkit.world.models.stepping import stepper


class Mixture(NamedTuple):
    """M components, each of independent normal columns.

    Source: Bishop 1994, "Mixture Density Networks", with a deviation for each column.

    Attributes:
        logits: Of the components' weights, `(..., M)`.
        mean: `(..., M, F + K)`.
        log_scale: `(..., M, F + K)`.
        binary: Which columns are binary, `(F + K,)`; None where there are none.
    """

    logits: Tensor
    mean: Tensor
    log_scale: Tensor
    binary: Tensor | None = None

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the whole, `(..., F + K)` each."""
        weight = _weights(self.logits).unsqueeze(-1)
        means, variances = self.mean, (2 * self.log_scale).exp()
        if self.binary is not None:
            p = means.sigmoid()
            means = torch.where(self.binary, p, means)
            variances = torch.where(self.binary, p * (1 - p), variances)
        mean = (weight * means).sum(-2)
        variance = variances + (means - mean.unsqueeze(-2)).square()
        return mean, (weight * variance).sum(-2).sqrt()

    def negative_log_likelihood(self, y: Tensor) -> Tensor:
        """Of whole rows `(..., F + K)`, in nats: `(...)`."""
        each = negative_log_likelihood(y.unsqueeze(-2), self.mean, self.log_scale, self.binary).sum(
            -1
        )
        return -(self.logits.log_softmax(-1) - each).logsumexp(-1)

    def sample(self, generator: torch.Generator, temperature: float) -> Tensor:
        """A sample of each of n mixtures, `(n, F + K)`; gradients flow within a component.

        Source: Ha and Schmidhuber 2018, appendix "MDN-RNN": a temperature divides the logits and
        its root scales the deviations; at 0 it is the mean of the likeliest component.
        """
        if temperature == 0:
            chosen = self.logits.argmax(1)
        else:
            draw = torch.rand(len(self.logits), 1, generator=generator, device=generator.device)
            reached = _weights(self.logits / temperature).cumsum(1)[:, :-1]
            chosen = (reached <= draw.to(reached.device)).sum(1)
        place = chosen.view(-1, 1, 1).expand(-1, 1, self.mean.shape[2])
        mean, log_scale = (part.gather(1, place).squeeze(1) for part in (self.mean, self.log_scale))
        return sample(mean, log_scale.exp(), self.binary, generator, math.sqrt(temperature))


@dataclass(frozen=True)
class MdnRnn(RecurrentWorldModel):
    """A recurrent network that reads observation and action and predicts a mixture of next steps.

    Source: Ha and Schmidhuber 2018, "World Models". Deliberately different: a component is
    one outcome of the whole step, with a mean for every column; theirs are drawn column by column.
    Columns that jump together, reward and termination among them, thereby stay together.

    Attributes:
        core: A sequence encoder: `"gru"`, `"lstm"`, `"rnn"`, or a table of a name and settings.
        mixtures: M, components, >= 1; 1 is a single normal distribution.
        delta: Whether the head predicts changes of the observation, or observations.
        frozen: Whether the core keeps its random weights, so that only the head is fitted: the
            control for a trained core.
        window: T, records per training window, >= 1; the hidden state is fresh at its start.
        widths: Set by `with_widths`.

    Raises:
        ValueError: If a field is out of its range.
    """

    core: Core = "gru"
    mixtures: int = 5
    delta: bool = True
    frozen: bool = False
    window: int = 32
    widths: Widths | None = None

    def __post_init__(self) -> None:
        self._keep_core()
        require(self, "mixtures", is_whole(self.mixtures, 1), "a whole number >= 1")
        require(self, "frozen", isinstance(self.frozen, bool), "true or false")
        require(self, "window", is_whole(self.window, 1), "a whole number >= 1")

    @cached_property
    def encoders(self) -> dict[str, SequenceEncoder]:
        """The core."""
        return {"core": self._encoder(self.known.observation + self.known.action)}

    def head_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the parameters after the core's."""
        outputs = self.mixtures * (1 + 2 * self.known.target)
        return {"head.weight": (self._core.features, outputs), "head.bias": (outputs,)}

    def fill(self, views: dict[str, Tensor], generator: torch.Generator) -> None:
        """Fresh values; the components' means start apart, or they would learn the same."""
        super().fill(views, generator)
        of_components = views["head.bias"][self.mixtures :].view(self.mixtures, 2, -1)
        of_components[:, 0].normal_(generator=generator)

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """The last observation, and the core's hidden state before that observation."""
        last = torch.zeros(count, self.known.observation, device=device)
        return (last, *self._core.initial(count, device))

    def update(self, vector: Tensor, read: Observed, hidden_state: HiddenState) -> HiddenState:
        """See `WorldModel.observe`."""
        x, first = read.x, read.is_first
        before = torch.cat([hidden_state[0].unsqueeze(1), x[:, :-1]], 1)
        inputs = torch.cat([before, read.previous_action], 2)
        # The core reads an observation with the action after it, one step later.
        resets = F.pad(first[:, :-1], (1, 0))
        _, state = self._core.scan(self._core_part(vector), inputs, hidden_state[1:], resets)
        fresh = self._core.initial(len(x), x.device)
        return (x[:, -1].clone(), *fresh_where(first[:, -1], fresh, state))

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """See `ParametricWorldModel.step_function`."""
        p, width = self.views(vector), self.known.observation
        advance = stepper(self._core, self._core_part(vector))

        def step(hidden_state: HiddenState, action: Tensor) -> Step:
            features, state = advance(hidden_state[1:], hidden_state[0], action)
            mixture = self._mixture(p, hidden_state[0], features)
            drawn = mixture.sample(draw.generator, draw.temperature)
            return Step(drawn, *mixture.moments(), (drawn[:, :width], *state))

        return step

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood; see `WorldModel.loss`."""
        x = windows.observation[:, :-1]
        read = torch.cat([x, windows.action], 2)
        part = self._core_part(vector)
        fresh, is_first = self._core.initial(len(x), x.device), windows.is_first[:, :-1]

        def run(part: Tensor) -> tuple[Tensor]:
            return (self._core.scan(part, read, fresh, is_first, generator)[0],)

        (features,) = loop(run, len(x) * part.numel(), part)
        mixture = self._mixture(self.views(vector), x, features)
        nll = windows.mean(mixture.negative_log_likelihood(windows.target))
        with torch.no_grad():
            error = windows.mean((mixture.moments()[0] - windows.target).square().mean(2))
        return nll, {"nll": nll.detach(), "error": error}

    @property
    def _core(self) -> SequenceEncoder:
        return self.encoders["core"]

    def _core_part(self, vector: Tensor) -> Tensor:
        part = self.part(vector, "core")
        return part.detach() if self.frozen else part

    def _mixture(self, p: dict[str, Tensor], x: Tensor, features: Tensor) -> Mixture:
        """The prediction after observations `x (..., F)`, from features `(..., D)`."""
        # Rows last: there are few columns and components, and loops over few numbers are slow.
        lead, rows = features.shape[:-1], features.flatten(0, -2)
        columns = torch.addmm(p["head.bias"].unsqueeze(1), p["head.weight"].T, rows.T)
        out = columns.T.view(*lead, -1)
        x = x.flatten(0, -2).T.contiguous().T.view(*lead, -1)
        logits, of_components = out[..., : self.mixtures], out[..., self.mixtures :]
        shape = (*out.shape[:-1], self.mixtures, 2 * self.known.target)
        raw, raw_scale = of_components.reshape(shape).chunk(2, -1)
        prediction = self.prediction(p, x.unsqueeze(-2), raw, raw_scale)
        return Mixture(logits, *prediction, self.binary(out.device))


def _weights(logits: Tensor) -> Tensor:
    """Softmax; PyTorch's takes several times as long over so few columns."""
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)
