"""What several world models are built of: widths, memory of one step, imagining step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks import Parametric
from rlkit.networks.encoders import HiddenState
from rlkit.world.contract import Imagined, Policy, Widths

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class ParametricWorldModel(Parametric):
    """What our models share: dataclasses with a field `widths` that is set last."""

    widths: Widths | None

    def with_widths(self, widths: Widths) -> Self:
        """The same model for other columns."""
        changed: Self = replace(self, widths=widths)  # type: ignore[type-var]
        return changed

    @property
    def size(self) -> int:
        """Length of the flat vector; 0 before `with_widths`."""
        return 0 if self.widths is None else super().size

    @property
    def known(self) -> Widths:
        """The widths.

        Raises:
            ValueError: If they are not set yet.
        """
        if self.widths is None:
            raise ValueError(
                f"{type(self).__name__} does not know its columns: use "
                f"model.with_widths(Widths(observation, action))"
            )
        return self.widths


class Markov(ParametricWorldModel):
    """A model that needs no memory but the last observation."""

    @property
    def window(self) -> int:
        """One record: windows of more would only hold neighbours that are much alike."""
        return 1

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Memory of fresh episodes; see `WorldModel.initial`."""
        return (torch.zeros(count, self.known.observation, device=device),)

    def observe(
        self,
        vector: Tensor,
        x: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> HiddenState:
        """The last observation of a window; see `WorldModel.observe`."""
        return (x[:, -1].clone(),)


class Step(NamedTuple):
    """One imagined step of n rows.

    Attributes:
        sample: `(n, F + K)`.
        mean: `(n, F + K)`, None where it is not known.
        scale: `(n, F + K)`, likewise.
        hidden_state: Memory after the step, `hidden_state[0]` the sample's observation.
    """

    sample: Tensor
    mean: Tensor | None
    scale: Tensor | None
    hidden_state: HiddenState


def unroll(
    step: Callable[[HiddenState, Tensor], Step],
    hidden_state: HiddenState,
    policy: Policy,
    horizon: int,
) -> Imagined:
    """Imagines step by step, `(carry, action) -> Step`, asking the policy before each."""
    width = hidden_state[0].shape[1]
    steps = []
    for t in range(horizon):
        steps.append(step(hidden_state, policy(hidden_state[0], hidden_state, t)))
        hidden_state = steps[-1].hidden_state
    samples = torch.stack([one.sample for one in steps], 1)
    return Imagined(
        observation=samples[:, :, :width],
        outcome=samples[:, :, width:],
        hidden_state=hidden_state,
        mean=_stacked([one.mean for one in steps]),
        scale=_stacked([one.scale for one in steps]),
    )


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known, 1) if len(known) == len(parts) else None


def normal(mean: Tensor, scale: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
    """Samples of normal distributions; a temperature scales their deviation, 0 gives the mean."""
    if temperature == 0:
        return mean
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return torch.addcmul(mean, noise, scale, value=temperature)


def negative_log_likelihood(y: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Of each number under a normal distribution, in nats; of the shape of its arguments."""
    return 0.5 * ((y - mean) * (-log_scale).exp()).square() + log_scale + HALF_LOG_2PI


def bounded(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Numbers drawn softly between two bounds, with a gradient everywhere.

    Source: Chua et al. 2018, appendix A.1, for the log-variance of a network's output.
    """
    x = high - F.softplus(high - x)
    return low + F.softplus(x - low)
