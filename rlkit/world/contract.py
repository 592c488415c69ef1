"""The contract of world models: what follows from observations and actions.

Conventions, those of `rlkit.replay.batch` for sequences of vectors:

- Batch first, `(B, T, ...)`. A window of T records has T + 1 observations; record t is
  `observation_t, action_t` and what they led to, `observation_{t+1}` and `outcome_t`.
- Outcomes are what a step yields besides the next observation: reward, termination. A model
  predicts them and never reads them.
- A model reads standardised numbers; `rlkit.world.World` converts from and to raw units.
- A hidden state covers everything up to the present observation, which is its first tensor:
  `hidden_state[0]` is the last observation `(B, F)`, observed or imagined. The others are the
  model's own.
- Parameters are a flat vector `(P,)`, which gradient steps fit, or a dict of tensors of any shapes,
  which the model's `solve` fits.

Laws, checked for every model by `check_world`: observing a window equals observing its single
steps; a reset is a fresh start; imagining reads only the past, and no action before its time;
padding never changes a loss; the same seed gives the same samples; training lowers the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.plugins import PluginGroup

Metrics = dict[str, Tensor]

Parameters = Any
"""A flat vector `(P,)`, or a dict of tensors."""
Policy = Callable[[Tensor, HiddenState, int], Tensor]
"""Actions in imagination: `(observation (n, F), hidden_state, t) -> action (n, A)`, t from 0 on."""


@dataclass(frozen=True)
class Widths:
    """The columns of a model.

    Attributes:
        observation: F, >= 1.
        action: A; 0 for a series without known drivers.
        outcome: K, columns that are predicted and never read.
        binary: Which outcomes are 0 or 1, by their place among the K. A model predicts them by a
            Bernoulli distribution; they are not standardised.
    """

    observation: int
    action: int
    outcome: int = 0
    binary: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        least = {"observation": 1, "action": 0, "outcome": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be >= {low} columns, got {getattr(self, name)}")
        if any(not 0 <= column < self.outcome for column in self.binary):
            raise ValueError(f"binary columns {self.binary} are out of {self.outcome} outcomes")

    @property
    def target(self) -> int:
        """F + K, the columns of one prediction: the next observation, then the outcome."""
        return self.observation + self.outcome


@dataclass(frozen=True)
class Windows:
    """B windows of T records, standardised. See the module for the conventions.

    Attributes:
        observation: `(B, T + 1, F)`.
        action: `(B, T, A)`.
        outcome: `(B, T, K)`.
        is_first: `(B, T + 1)`, where the hidden state is reset before the observation is read; True
            at every window's start.
        mask: `(B, T)`, whether a record counts. False on padding, which comes last, and on context,
            which the model reads and the loss does not count.
        position: `(B, T)` integers, the index of the record in the data, for models that weight
            records individually.
    """

    observation: Tensor
    action: Tensor
    outcome: Tensor
    is_first: Tensor
    mask: Tensor
    position: Tensor

    def __len__(self) -> int:
        return len(self.action)

    @property
    def counted(self) -> Tensor:
        """`(B, T)` float32, 1 where a record counts: under the mask, and no reset follows it."""
        return (self.mask & ~self.is_first[:, 1:]).float()

    @property
    def target(self) -> Tensor:
        """`(B, T, F + K)`, the predicted columns: next observation, then outcome."""
        return torch.cat([self.observation[:, 1:], self.outcome], 2)

    @property
    def previous_action(self) -> Tensor:
        """`(B, T + 1, A)`, the action before each observation; zero where an episode begins."""
        previous = torch.nn.functional.pad(self.action, (0, 0, 1, 0))
        return previous * (~self.is_first).unsqueeze(2)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `(B, T)` values over the records that count; 0 where none does."""
        counted = self.counted
        # Not a product: padding may be infinite.
        total = torch.where(counted > 0, values, 0.0).sum()
        return total / counted.sum().clamp(min=1)


@dataclass(frozen=True)
class Imagined:
    """An imagined trajectory of n rows and H steps.

    Attributes:
        observation: `(n, H, F)` samples; `observation[:, 0]` follows the first action.
        outcome: `(n, H, K)` samples.
        hidden_states: The hidden state after each of the H steps.
        mean: `(n, H, F + K)`, each step's expectation given the imagined steps before it; None
            where a model does not know it.
        scale: `(n, H, F + K)`, each step's standard deviation, likewise.
    """

    observation: Tensor
    outcome: Tensor
    hidden_states: tuple[HiddenState, ...]
    mean: Tensor | None = None
    scale: Tensor | None = None

    @property
    def hidden_state(self) -> HiddenState:
        """The hidden state after the last step."""
        return self.hidden_states[-1]

    @property
    def latents(self) -> HiddenState:
        """The model's own parts of the hidden state after every step, `(n, H, ...)` each.

        Of an RSSM its deterministic and its stochastic state; empty without a recurrent state.
        """
        return tuple(torch.stack(part, 1) for part in zip(*self.hidden_states, strict=True))[1:]

    @property
    def finite(self) -> Tensor:
        """`(n,)`, whether all numbers of a row are finite; other rows must not be used."""
        whole = torch.cat([self.observation, self.outcome], 2)
        return whole.isfinite().all(2).all(1)


@runtime_checkable
class WorldModel(Protocol):
    """Dynamics or a forecaster as a pure function of its parameters.

    A model is configured without knowing its columns; `with_widths` completes it.

    Optional members:

    - `solve(batches) -> parameters`, a closed form. It is given windows in which every training
      record stands once, and no gradient step is taken. Required where parameters are a dict.
    - `adapt(parameters, windows) -> parameters`, before the first gradient step, to fit scales to
      data.
    - `differentiable = False`, for models without gradients through imagination.
    """

    @property
    def widths(self) -> Widths | None:
        """The columns; None before `with_widths`."""

    @property
    def window(self) -> int:
        """T, records per training window that suit the model; 1 without a recurrent state."""

    def with_widths(self, widths: Widths) -> Self:
        """The same model for other columns.

        Raises:
            ValueError: If it cannot predict such columns.
        """

    def initial_parameters(self, generator: torch.Generator) -> Parameters:
        """Fresh parameters."""

    def views(self, parameters: Parameters, /) -> dict[str, Tensor]:
        """The parameters by name; they share memory with `parameters`."""

    def from_views(self, views: dict[str, Tensor]) -> Parameters:
        """The inverse of `views`.

        Raises:
            ValueError: If they are the parameters of another model.
        """

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Hidden state of `count` fresh episodes, `hidden_state[0]` zeros `(count, F)`."""

    def observe(
        self,
        parameters: Parameters,
        /,
        x: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> HiddenState:
        """Updates the hidden state with a window of observations.

        Args:
            parameters: The parameters.
            x: Observations `(B, T, F)`, T >= 1.
            previous_action: The action before each, `(B, T, A)`; ignored where `is_first`.
            hidden_state: Before the window, never written to.
            is_first: `(B, T)`; the hidden state is reset there, before `x` is read.
            generator: Source of posterior samples; None takes the most likely instead.

        Returns:
            The hidden state after the window's last observation.
        """

    def imagine(
        self,
        parameters: Parameters,
        /,
        hidden_state: HiddenState,
        policy: Policy,
        horizon: int,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Imagined:
        """Samples one trajectory per row.

        Gradients flow to parameters, hidden state and actions.

        Args:
            parameters: The parameters.
            hidden_state: Of n rows, never written to.
            policy: Called once per step, in order, with all rows in the order of `hidden_state`,
                the last observation first. `OpenLoop(actions)` is one of given actions, all of
                which a model may read at once.
            horizon: H, >= 1.
            generator: The only source of randomness.
            temperature: Scales the randomness of each prediction: 1 as learned, 0 none.
        """

    def loss(
        self, parameters: Parameters, /, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """The training loss: a sum over columns, a mean over the records that count.

        Args:
            parameters: The parameters; gradients flow to a vector.
            windows: Standardised; `windows.mean` leaves out what does not count.
            generator: The only source of randomness.
            step: Gradient steps taken so far, for schedules.

        Returns:
            The loss and its parts, detached: in every model `error`, the squared error of
            predicting one step ahead, a mean over columns and the records that count.
        """


WORLDS = PluginGroup[WorldModel]("rlkit.worlds", "world model", WorldModel, "widths")
"""World models by name or description."""


@dataclass(frozen=True)
class OpenLoop:
    """The policy that takes given actions.

    Attributes:
        actions: `(n, H, A)`.
    """

    actions: Tensor

    def __call__(self, observation: Tensor, hidden_state: HiddenState, t: int) -> Tensor:
        """Action t of every row, `(n, A)`."""
        return self.actions[:, t]


def repeat(hidden_state: HiddenState, times: int) -> HiddenState:
    """A hidden state with every row `times` times in a row: `(n, ...) -> (n * times, ...)`."""
    return tuple(part.repeat_interleave(times, 0) for part in hidden_state)
