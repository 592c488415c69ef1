"""What world models share: flat parameters for given columns, and imagining step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rlkit.networks import Parametric
from rlkit.networks.encoders import HiddenState
from rlkit.world.contract import Imagined, OpenLoop, Policy, Widths
from rlkit.world.models.densities import moments, sample


class ParametricWorldModel(Parametric):
    """A world model of one flat parameter vector: a dataclass whose last field is `widths`."""

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

    def from_views(self, views: dict[str, Tensor]) -> Tensor:
        """The flat vector of named parameters; see `WorldModel.from_views`."""
        vector = torch.empty(self.size)
        own = self.views(vector)
        shapes = [{name: tuple(p.shape) for name, p in part.items()} for part in (views, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the parameters have shapes {shapes[0]}, the model has {shapes[1]}")
        for name, view in own.items():
            view.copy_(views[name])
        return vector

    def update(self, vector: Tensor, read: Observed, hidden_state: HiddenState) -> HiddenState:
        """The hidden state after a window; see `WorldModel.observe`."""
        return (read.x[:, -1].clone(),)

    def observe(
        self,
        vector: Tensor,
        x: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> HiddenState:
        """See `WorldModel.observe`."""
        read = Observed(x, previous_action, is_first, generator)
        return self.update(vector, read, hidden_state)

    def step_function(self, vector: Tensor, start: HiddenState, draw: Sampling) -> StepFunction:
        """Imagines one step after another from `start`."""
        raise NotImplementedError(f"{type(self).__name__} has neither step_function nor imagine")

    def imagine(
        self,
        vector: Tensor,
        hidden_state: HiddenState,
        policy: Policy,
        horizon: int,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Imagined:
        """See `WorldModel.imagine`."""
        draw = Sampling(generator, temperature, self.binary(vector.device))
        step = self.step_function(vector, hidden_state, draw)
        return unroll(step, hidden_state, policy, horizon)

    def binary(self, device: torch.device) -> Tensor | None:
        """Which columns of a prediction are binary, `(F + K,)`; None where there are none."""
        w = self.known
        if not w.binary:
            return None
        mask = torch.zeros(w.target, dtype=torch.bool, device=device)
        mask[[w.observation + column for column in w.binary]] = True
        return mask


class Markov(ParametricWorldModel):
    """A model whose only state is the last observation."""

    @property
    def window(self) -> int:
        """One record: those of a longer window resemble each other."""
        return 1

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """See `WorldModel.initial`."""
        return (torch.zeros(count, self.known.observation, device=device),)


class Observed(NamedTuple):
    """A window of observations; see `WorldModel.observe`."""

    x: Tensor
    previous_action: Tensor
    is_first: Tensor
    generator: torch.Generator | None


class Sampling(NamedTuple):
    """How predictions are sampled; see `WorldModel.imagine` and `densities`."""

    generator: torch.Generator
    temperature: float
    binary: Tensor | None

    def step(self, mean: Tensor, scale: Tensor, *rest: Tensor, width: int) -> Step:
        """A sample of mean and deviation `(n, F + K)`, of which F = `width` are observations."""
        drawn = sample(mean, scale, self.binary, self.generator, self.temperature)
        return Step(drawn, *moments(mean, scale, self.binary), (drawn[:, :width], *rest))


class Step(NamedTuple):
    """One imagined step of n rows.

    Attributes:
        sample: `(n, F + K)`.
        mean: `(n, F + K)`, None where it is not known.
        scale: `(n, F + K)`, likewise.
        hidden_state: After the step; `hidden_state[0]` is the sample's observation.
    """

    sample: Tensor
    mean: Tensor | None
    scale: Tensor | None
    hidden_state: HiddenState


StepFunction = Callable[[HiddenState, Tensor], Step]
"""`(hidden_state, action (n, A)) -> Step`."""


def unroll(
    step: StepFunction,
    hidden_state: HiddenState,
    policy: Policy,
    horizon: int,
) -> Imagined:
    """Imagines step by step with `step(hidden_state, action)`; the policy acts before each."""
    width = hidden_state[0].shape[1]
    steps = []
    for t in range(horizon):
        steps.append(step(hidden_state, policy(hidden_state[0], hidden_state, t)))
        hidden_state = steps[-1].hidden_state
    samples = torch.stack([one.sample for one in steps], 1)
    return Imagined(
        observation=samples[:, :, :width],
        outcome=samples[:, :, width:],
        hidden_states=tuple(one.hidden_state for one in steps),
        mean=_stacked([one.mean for one in steps]),
        scale=_stacked([one.scale for one in steps]),
    )


def unroll_whole(
    predict: Callable[[Tensor], Imagined],
    hidden_state: HiddenState,
    policy: Policy,
    horizon: int,
) -> Imagined:
    """Imagines with a model that predicts all steps of `predict(actions (n, h, A))` at once.

    Given actions take one call. Any other policy takes one call per step, each with the actions so
    far; the first steps of `predict` must then depend on neither later actions nor new randomness.
    """
    if isinstance(policy, OpenLoop):
        return predict(policy.actions[:, :horizon])
    actions: list[Tensor] = []
    for t in range(horizon):
        actions.append(policy(hidden_state[0], hidden_state, t))
        made = predict(torch.stack(actions, 1))
        hidden_state = made.hidden_state
    return made


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known, 1) if len(known) == len(parts) else None
