"""Random actions among those of a policy, each held for a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.offpolicy.spaces import SpaceAdapter


class HeldActions:
    """Draws actions uniformly, and holds each for 1 to `longest` decisions, as often for each.

    Temporally extended epsilon-greedy exploration: what takes many steps in one direction, such as
    a push, hardly ever follows from independent actions. The share of decisions that are random is
    the same at every step of an episode, whatever `longest` is: an episode begins as if the actions
    had been chosen so for ever.

    Source: Dabney et al. 2021, "Temporally-Extended epsilon-Greedy Exploration", algorithm 1. There
    durations follow a zeta distribution, and `epsilon` is the probability to begin.

    Args:
        adapter: Draws an action.
        count: Number of environments, N.
        longest: Most decisions for which an action is held, >= 2.
    """

    def __init__(self, adapter: SpaceAdapter, count: int, longest: int) -> None:
        self._adapter, self._longest = adapter, longest
        self._action = np.zeros_like(adapter.random_actions(count, np.random.default_rng(0)))
        self._left = np.zeros(count, np.int64)  # decisions for which it is still held

    def uniform(self, is_first: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[Any]:
        """Random actions in every environment, `(N, *action)`, as they are stored."""
        return self.mixed(self._action, 1.0, is_first, generator)

    def mixed(
        self,
        action: NDArray[Any],
        share: float,
        is_first: NDArray[np.bool_],
        generator: np.random.Generator,
    ) -> NDArray[Any]:
        """Chosen actions, of which a share is replaced by random ones.

        Args:
            action: The policy's `(N, *action)`.
            share: Expected share of random ones.
            is_first: Where an episode begins, `(N,)`.
            generator: Source of random numbers; it is not used where `share` is 0 and no action
                is held.
        """
        count, longest = len(action), self._longest
        self._left[is_first] = 0
        if share > 0:
            mean = (1 + longest) / 2
            starts = np.where(is_first, share, share / (share + mean * (1 - share)))
            begins = (self._left == 0) & (generator.random(count) < starts)
            # What is left of an action that is met at a random decision: the smaller of two
            # different numbers from 1 to longest + 1.
            left = generator.integers(1, longest + 1, count)
            other = generator.integers(1, longest + 1, count)
            met = np.minimum(left, other + (other >= left))
            drawn = self._adapter.random_actions(count, generator)
            self._left[begins] = np.where(is_first, met, left)[begins]
            self._action[begins] = drawn[begins]
        is_held = self._left > 0
        self._left[is_held] -= 1
        return np.where(is_held.reshape(-1, *[1] * (action.ndim - 1)), self._action, action)

    def state_dict(self) -> dict[str, Any]:
        """The actions that are held, `(N, *action)`, and for how long, `(N,)`."""
        return {"action": self._action.copy(), "left": self._left.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._action, self._left = np.array(state["action"]), np.array(state["left"])
