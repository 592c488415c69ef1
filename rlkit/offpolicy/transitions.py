"""A batch of windows as rows, and what each network reads of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlkit.networks.gradient import State

Inputs = tuple[Tensor, Tensor, Tensor]
"""Features `(R, D)` of the encoder (D = 0 without), observation `(R, F)` and goal `(R, G)`."""


@dataclass(frozen=True)
class View:
    """What one network reads in a batch.

    Attributes:
        parameters: Its parameters `(size,)`; its loss is differentiated by them.
        current: Inputs at each row's observation.
        next: Inputs at the observation that the row's value bootstraps from.
    """

    parameters: Tensor
    current: Inputs
    next: Inputs

    def detached(self) -> Inputs:
        """The current inputs, with features that pass no gradient on."""
        features, observation, goal = self.current
        return features.detach(), observation, goal


@dataclass(frozen=True)
class Transitions:
    """R rows that losses read, one for each step of the windows after the burn-in.

    Attributes:
        views: By network, what it reads: actor and critic may see different goals and features.
        action: `(R, A)`, or integers, `(R,)` or for K components `(R, K)`.
        reward: `(R,)`; a discounted sum where n-step sums are used.
        discount: Of the value that follows, `(R,)`; 0 after a termination.
        weight: 1 over the number of valid steps, 0 for padding, `(R,)`.
    """

    views: Mapping[str, View]
    action: Tensor
    reward: Tensor
    discount: Tensor
    weight: Tensor

    def __getitem__(self, network: str) -> View:
        return self.views[network]

    @property
    def actor(self) -> View:
        """What the actor reads."""
        return self.views["actor"]

    @property
    def critic(self) -> View:
        """What the critics read."""
        return self.views["critic"]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over valid rows, `(..., R) -> (...)`."""
        return (values * self.weight).sum(-1)


def rows_of(batch: State, burn_in: int, scale: Callable[[str, Tensor], Tensor]) -> State:
    """Every step after the burn-in as a row.

    Args:
        batch: As `GradientLearner.update` takes it.
        burn_in: Records at the windows' start that nothing is learned from.
        scale: Scales an `observation` or a `goal`.

    Returns:
        `observation`, `next_observation (R, F)`; `goal (R, G)`, and `visible_goal`,
        `next_visible_goal`, which are zero where the goal is hidden; `action`, and `reward`,
        `discount`, `weight (R,)`.
    """
    x, part = batch["observation"], slice(burn_in, batch["reward"].shape[1])
    goal = scale("goal", batch["goal"][:, part])
    visible_goal = next_visible_goal = goal
    if "visible" in batch:
        visible = batch["visible"].unsqueeze(-1)
        next_visible_goal = goal * at_next(batch, visible, burn_in)
        visible_goal = goal * visible[:, part]
    mask = batch["mask"][:, part]
    rows = {
        # Scaled after slicing, so that the parts are contiguous: products are faster then.
        "observation": scale("observation", x[:, part]),
        "next_observation": scale("observation", at_next(batch, x, burn_in)),
        "goal": goal,
        "visible_goal": visible_goal,
        "next_visible_goal": next_visible_goal,
        "action": batch["action"][:, part],
        "reward": batch["reward"][:, part],
        "discount": batch["discount"][:, part],
        "weight": mask / mask.sum(),
    }
    return {name: value.flatten(0, 1) for name, value in rows.items()}


def view_of(
    parameters: Tensor,
    features: Tensor | None,
    rows: State,
    batch: State,
    burn_in: int,
    sees_goal: bool,
) -> View:
    """What a network reads at the rows of a batch.

    Args:
        parameters: The network's, `(size,)`.
        features: Its encoder's at all observations after the burn-in, `(B, L - burn_in, D)`; None
            without an encoder.
        rows: What `rows_of` gave.
        batch: The batch that they come from.
        burn_in: Records at the windows' start that nothing is learned from.
        sees_goal: Whether it reads goals that are hidden as well.
    """
    steps = batch["reward"].shape[1] - burn_in
    if features is None:
        current = after = rows["reward"].new_zeros(len(rows["reward"]), 0)
    else:
        with torch.enable_grad():
            # `at_next` counts from the window's first observation, the burn-in included.
            whole = F.pad(features, (0, 0, burn_in, 0))
            current = features[:, :steps].flatten(0, 1)
            after = at_next(batch, whole, burn_in).flatten(0, 1)
    goals = ("goal", "goal") if sees_goal else ("visible_goal", "next_visible_goal")
    return View(
        parameters,
        (current, rows["observation"], rows[goals[0]]),
        (after, rows["next_observation"], rows[goals[1]]),
    )


def at_next(batch: State, x: Tensor, burn_in: int) -> Tensor:
    """Of values at all observations `(B, L, W)`, those that steps bootstrap from.

    Returns:
        `(B, T - burn_in, W)`.
    """
    steps = batch["reward"].shape[1]
    if "bootstrap" not in batch:
        return x[:, burn_in + 1 : steps + 1]
    index = batch["bootstrap"][:, burn_in:].unsqueeze(-1)
    return x.gather(1, index.expand(-1, -1, x.shape[-1]))
