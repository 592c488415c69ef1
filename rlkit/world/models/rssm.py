"""The recurrent state-space model: a deterministic state and stochastic latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.encoders import GRU, HiddenState
from rlkit.networks.encoders.layers import fill_layers, linear
from rlkit.networks.fields import is_number, is_whole, require
from rlkit.world.contract import Metrics, Widths, Windows
from rlkit.world.models.densities import moments, negative_log_likelihood
from rlkit.world.models.parametric import (
    Observed,
    ParametricWorldModel,
    Sampling,
    Step,
    StepFunction,
)
from rlkit.world.models.rssm_latents import Categorical, Gaussian, Latents
from rlkit.world.models.rssm_scan import RssmScan, Weights
from rlkit.world.models.stepping import gru_stepper

LATENTS = ("gaussian", "categorical")
LOW, HIGH = -5.0, 0.25  # bounds of the decoder's log-deviation
UNSURE = 2.0  # its initial value before a sigmoid: near the deviation of the data

Views = dict[str, Tensor]


@dataclass(frozen=True)
class Rssm(ParametricWorldModel):
    """A GRU whose state predicts the next latent, and both together the next observation.

    The state h is updated with the last latent z and action. The prior of the next latent, used in
    imagination, depends on h; its posterior, used on observations, on h and the observation. A
    decoder predicts from h and z a normal distribution of observation and outcomes. Outcomes are
    not read. Observations affect h only through z, so imagined observations are not read either.

    The loss is reconstruction and divergence of posterior and prior, the latter without a gradient
    below `free` and with weights of its own for the prior's gradient and the posterior's. Its
    gradient is that of DreamerV3's section "World model learning", L_pred + dynamics L_dyn +
    representation L_rep, with a learned deviation in place of a fixed one; its value is the
    negative evidence bound, whatever the weights. A window's first observation is not predicted, so
    its latent has no loss.

    Source: Hafner et al. 2019 (PlaNet), 2021 (DreamerV2), 2023 (DreamerV3).

    Attributes:
        latents: `"gaussian"` or `"categorical"`.
        dims: Gaussian latents, >= 1.
        groups: Categorical latents, >= 1.
        classes: Of each categorical latent, >= 2.
        deterministic: Width of the state h, >= 1.
        hidden: Width of the networks' hidden layers, >= 1.
        dynamics: Weight of the divergence that moves the prior, >= 0.
        representation: Weight of the divergence that moves the posterior, >= 0. Both at 1 are the
            bound itself and give the best calibrated forecasts; with DreamerV3's 1 and 0.1, the
            posterior may hold what the prior cannot predict, and categorical latents learn faster.
        free: Nats of a step's divergence without loss, >= 0; DreamerV3's is 1, for images.
        window: T, records per training window, >= 1.
        widths: Set by `with_widths`.

    Raises:
        ValueError: If a field is out of its range.
    """

    latents: str = "gaussian"
    dims: int = 16
    groups: int = 8
    classes: int = 8
    deterministic: int = 64
    hidden: int = 64
    dynamics: float = 1.0
    representation: float = 1.0
    free: float = 0.0
    window: int = 32
    widths: Widths | None = None

    def __post_init__(self) -> None:
        require(self, "latents", self.latents in LATENTS, f"one of {LATENTS}")
        for name in ("dims", "groups", "deterministic", "hidden", "window"):
            require(self, name, is_whole(getattr(self, name), 1), "a whole number >= 1")
        require(self, "classes", is_whole(self.classes, 2), "a whole number >= 2")
        for name in ("dynamics", "representation", "free"):
            require(self, name, is_number(getattr(self, name), 0), "a number >= 0")

    @property
    def stochastic(self) -> Latents:
        """The latents."""
        if self.latents == "gaussian":
            return Gaussian(self.dims)
        return Categorical(self.groups, self.classes)

    @property
    def cell(self) -> GRU:
        """The GRU of the state, which reads latent and action."""
        return GRU(self.deterministic).with_inputs(self.stochastic.width + self.known.action)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""
        w, state, hidden, z = self.known, self.deterministic, self.hidden, self.stochastic
        layers = {
            "embedding.0": (w.observation, hidden),
            "embedding.1": (hidden, hidden),
            "posterior.1": (hidden, z.outputs),
            "prior.0": (state, hidden),
            "prior.1": (hidden, z.outputs),
            "decoder.0": (state + z.width, hidden),
            "decoder.1": (hidden, 2 * w.target),
        }
        shapes = {f"memory.{name}": shape for name, shape in self.cell.shapes().items()}
        shapes["posterior.0.weight"] = (state, hidden)
        for name, (before, after) in layers.items():
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (before, after), (after,)
        return shapes

    def fill(self, views: Views, generator: torch.Generator) -> None:
        """Fresh values: of a GRU, and of layers that keep the variance."""
        start = "memory."
        cell = {name.removeprefix(start): views[name] for name in views if name.startswith(start)}
        self.cell.fill(cell, generator)
        others = {name: view for name, view in views.items() if not name.startswith(start)}
        fill_layers(others, generator)
        views["decoder.1.bias"][self.known.target :] = UNSURE

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Last observation, state and latent of fresh episodes; see `WorldModel.initial`."""
        widths = (self.known.observation, self.deterministic, self.stochastic.width)
        return tuple(torch.zeros(count, width, device=device) for width in widths)

    def update(self, vector: Tensor, read: Observed, hidden_state: HiddenState) -> HiddenState:
        """See `WorldModel.observe`."""
        p, noise, x = self.views(vector), None, read.x
        if read.generator is not None:
            noise = self.stochastic.noise((x.shape[1], len(x)), read.generator).to(x.device)
        action = read.previous_action * ~read.is_first.unsqueeze(2)
        after = self._filtered(p, x, action, hidden_state[1:], read.is_first, noise)
        return x[:, -1].clone(), after[0][-1], after[1][-1]

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """See `ParametricWorldModel.step_function`.

        Mean and scale of a step are given the row's sampled latent: the distribution of the step is
        their mixture over rows. The temperature scales both latent and observation.
        """
        p, latents, width = self.views(vector), self.stochastic, self.known.observation
        advance = gru_stepper(*self._cell_weights(p))

        def step(hidden_state: HiddenState, action: Tensor) -> Step:
            noise = latents.noise((len(action),), draw.generator).to(action.device)
            h = advance(hidden_state[1], hidden_state[2], action)
            z = latents.sample(_layers(p, "prior", h), noise, draw.temperature)
            mean, log_scale = self._decoded(p, h, z)
            return draw.step(mean, log_scale.exp(), h, z, width=width)

        return step

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """Negative evidence bound with balanced gradients; see `WorldModel.loss`.

        `nll` is an upper bound of the negative log-likelihood: full reconstruction and divergence.
        """
        p, latents, x = self.views(vector), self.stochastic, windows.observation
        noise = latents.noise((x.shape[1], len(x)), generator).to(x.device)
        start = self.initial(len(x), x.device)[1:]
        action, first = windows.previous_action, windows.is_first
        after = self._filtered(p, x, action, start, first, noise)
        h, z, posterior = (part[1:].transpose(0, 1) for part in after)
        prior, target = _layers(p, "prior", h), windows.target
        binary = self.binary(vector.device)
        reconstruction = negative_log_likelihood(target, *self._decoded(p, h, z), binary).sum(2)
        apart = latents.divergence(
            _weighted(posterior, self.representation),
            _weighted(prior, self.dynamics),
        )
        loss = windows.mean(reconstruction + apart.clamp(min=self.free))
        with torch.no_grad():
            decoded = self._decoded(p, h, latents.sample(prior, None))
            mean, _ = moments(*decoded, binary)
            metrics = {
                "nll": windows.mean(reconstruction + apart),
                "reconstruction": windows.mean(reconstruction),
                "divergence": windows.mean(apart),
                "error": windows.mean((mean - target).square().mean(2)),
            }
        return loss, metrics

    def _filtered(
        self,
        p: Views,
        x: Tensor,
        action: Tensor,
        start: HiddenState,
        is_first: Tensor,
        noise: Tensor | None,
    ) -> HiddenState:
        """States, latents and the posteriors' outputs `(T, B, .)` after each of T observations.

        Args:
            p: Parameters by name.
            x: `(B, T, F)`.
            action: What led to each, `(B, T, A)`, zero where `is_first`.
            start: State and latent before.
            is_first: `(B, T)`.
            noise: From the latents' `noise`, `(T, B, ...)`; None for the most likely ones.
        """
        read = _layers(p, "embedding", x.transpose(0, 1))
        weights = Weights(
            *self._cell_weights(p),
            *(p[f"posterior.{name}"] for name in ("0.weight", "1.weight", "1.bias")),
        )
        sequences = read, action.transpose(0, 1), *start, is_first.t(), noise
        found: HiddenState = RssmScan.apply(self.stochastic, *sequences, *weights)  # type: ignore[no-untyped-call]
        return found

    def _cell_weights(self, p: Views) -> list[Tensor]:
        names = ("input.weight", "recurrent.weight", "bias", "recurrent.bias")
        return [p[f"memory.0.{name}"] for name in names]

    def _decoded(self, p: Views, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation `(..., F + K)` of observation and outcome."""
        mean, raw = _layers(p, "decoder", torch.cat([h, z], -1)).chunk(2, -1)
        return mean, LOW + (HIGH - LOW) * raw.sigmoid()


def _layers(p: Views, name: str, x: Tensor) -> Tensor:
    """Outputs of a network of two layers."""
    return linear(p, f"{name}.1", F.silu(linear(p, f"{name}.0", x)))


def _weighted(x: Tensor, weight: float) -> Tensor:
    """The same numbers with `weight` times their gradient."""
    return x if weight == 1 else torch.lerp(x.detach(), x, weight)
