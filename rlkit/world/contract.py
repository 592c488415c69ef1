"""What a world model is: a function from what was seen and what is done to what may come of it.

Conventions, those of `rlkit.replay.batch` for sequences of vectors:

- Batch first, `(B, T, ...)`. A window of T records has T + 1 observations; record t is
  `observation_t, action_t` and what they led to, `observation_{t+1}` and `outcome_t`.
- Outcomes are what a step brings besides the next observation: reward, termination. A model
  predicts them and never reads them.
- A model sees standardised numbers; `rlkit.world.World` stands between it and raw units.
- A carry has taken in everything up to the present observation, and that is its first tensor:
  `hidden_state[0]` is the last observation `(B, F)`, seen or imagined. The others are the model's
  own.

Laws, checked for every model by `check_world`: observing a window equals observing its single
steps; a reset is a fresh start; imagining reads the past alone, and no action before its time;
padding never changes a loss; the same seed gives the same samples; training lowers the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from rlkit.networks.encoders import HiddenState
from rlkit.plugins import PluginGroup

Metrics = dict[str, Tensor]

Policy = Callable[[Tensor, HiddenState, int], Tensor]
"""What is done in imagination: `(observation (n, F), carry, t) -> action (n, A)`, t from 0 on."""


@dataclass(frozen=True)
class Widths:
    """The columns that a model deals in.

    Attributes:
        observation: F, >= 1.
        action: A; 0 for a series that nobody drives.
        outcome: K, columns that are predicted and never read.
    """

    observation: int
    action: int
    outcome: int = 0

    def __post_init__(self) -> None:
        least = {"observation": 1, "action": 0, "outcome": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be >= {low} columns, got {getattr(self, name)}")

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
        is_first: `(B, T + 1)`, where memory is fresh before the observation is read; True at every
            window's start.
        mask: `(B, T)`, whether a record counts. False on padding, which comes last, and on context,
            which memory reads and the loss does not count.
        position: `(B, T)` integers, which record of the data this is, for models that weigh
            records each in its own way.
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
        """`(B, T, F + K)`, what is predicted: the next observation, then the outcome."""
        return torch.cat([self.observation[:, 1:], self.outcome], 2)

    @property
    def previous_action(self) -> Tensor:
        """`(B, T + 1, A)`, what led to each observation; zero where an episode begins."""
        led = torch.nn.functional.pad(self.action, (0, 0, 1, 0))
        return led * (~self.is_first).unsqueeze(2)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `(B, T)` values over the records that count; 0 where none does."""
        counted = self.counted
        # Not a product: what stands under padding may be infinite.
        total = torch.where(counted > 0, values, 0.0).sum()
        return total / counted.sum().clamp(min=1)


@dataclass(frozen=True)
class Imagined:
    """What a model made up, n rows of H steps.

    Attributes:
        observation: `(n, H, F)` samples; `observation[:, 0]` is what the first action led to.
        outcome: `(n, H, K)` samples.
        hidden_state: Memory after the last step.
        mean: `(n, H, F + K)`, each step's expectation given the imagined steps before it; None
            where a model does not know it.
        scale: `(n, H, F + K)`, each step's standard deviation, likewise.
    """

    observation: Tensor
    outcome: Tensor
    hidden_state: HiddenState
    mean: Tensor | None = None
    scale: Tensor | None = None

    @property
    def finite(self) -> Tensor:
        """`(n,)`, whether a row holds nothing but numbers; no other row may be acted upon."""
        whole = torch.cat([self.observation, self.outcome], 2)
        return whole.isfinite().all(2).all(1)


@runtime_checkable
class WorldModel(Protocol):
    """Dynamics or a forecaster as a pure function of one flat vector.

    A model is configured without knowing what it will see; `with_widths` completes it.

    Two more methods are called where a model has them. `solve(batches) -> vector`, for a closed
    form: it is given windows in which every training record stands once, and no gradient step is
    taken. `adapt(vector, windows) -> vector`, before the first gradient step, to fit scales to
    data.
    """

    @property
    def widths(self) -> Widths | None:
        """What the model sees and predicts; None before `with_widths`."""

    @property
    def window(self) -> int:
        """T, records per training window that suit the model; 1 for models without memory."""

    @property
    def size(self) -> int:
        """P, the length of the parameter vector; 0 before `with_widths`."""

    def with_widths(self, widths: Widths) -> Self:
        """The same model for other columns."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, in the flat vector's order."""

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector `(P,)`; they share its memory."""

    def initial_parameters(self, generator: torch.Generator) -> Tensor:
        """A fresh parameter vector `(P,)`."""

    def initial(self, count: int, device: torch.device | str = "cpu") -> HiddenState:
        """Memory of `count` fresh episodes, `hidden_state[0]` zeros `(count, F)`."""

    def observe(
        self,
        vector: Tensor,
        x: Tensor,
        previous_action: Tensor,
        hidden_state: HiddenState,
        is_first: Tensor,
        generator: torch.Generator | None = None,
    ) -> HiddenState:
        """Takes in a window of what happened.

        Args:
            vector: Parameters `(P,)`.
            x: Observations `(B, T, F)`, T >= 1.
            previous_action: What led to each, `(B, T, A)`; of no meaning where `is_first`.
            hidden_state: Memory before the window, never written to.
            is_first: `(B, T)`; memory is fresh there, before `x` is read.
            generator: Source of posterior samples; None takes the most likely instead.

        Returns:
            Memory after the window's last observation.
        """

    def imagine(
        self,
        vector: Tensor,
        hidden_state: HiddenState,
        policy: Policy,
        horizon: int,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Imagined:
        """Makes up what would come, a sample per row. Gradients flow to vector, carry and actions.

        Args:
            vector: Parameters `(P,)`.
            hidden_state: Memory of n rows, never written to.
            policy: Called once per step, in order, with all rows in the order of `hidden_state`,
                the last observation first; `open_loop(actions)` makes one of given actions.
            horizon: H, >= 1.
            generator: The only source of chance.
            temperature: How much chance there is within a prediction: 1 as it was learned, 0 none.
        """

    def loss(
        self, vector: Tensor, windows: Windows, generator: torch.Generator, step: int
    ) -> tuple[Tensor, Metrics]:
        """What training lowers: a sum over columns, a mean over the records that count.

        Args:
            vector: Parameters `(P,)`; gradients flow to it.
            windows: Standardised; `windows.mean` leaves out what does not count.
            generator: The only source of chance.
            step: Gradient steps taken so far, for schedules.

        Returns:
            The loss and what it is made of, detached: in every model `error`, the squared error of
            predicting one step ahead, a mean over columns and the records that count.
        """


def open_loop(actions: Tensor) -> Policy:
    """The policy that does what it is told: actions `(n, H, A)`."""
    steps = actions.unbind(1)
    return lambda observation, hidden_state, t: steps[t]


def repeat(hidden_state: HiddenState, times: int) -> HiddenState:
    """Memory in which every row stands `times` times in a row: `(n, ...) -> (n * times, ...)`."""
    return tuple(part.repeat_interleave(times, 0) for part in hidden_state)


WORLDS = PluginGroup[WorldModel]("rlkit.worlds", "world model", WorldModel, "widths")
