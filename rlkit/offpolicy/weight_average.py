"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor


class WeightAverage:
    """The average of a network's weights over its updates.

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".
    Deviation: an exponential average, which forgets what the policy was early in training.

    Args:
        weights: The network's, `(size,)`.
        decay: Share of the average that stays at each update, in (0, 1).

    Attributes:
        weights: The average, `(size,)`.
    """

    def __init__(self, weights: Tensor, decay: float) -> None:
        self.weights, self._decay = weights.clone(), decay

    def update(self, weights: Tensor, updates: int) -> None:
        """Takes in the weights after a number of updates, >= 1.

        It is a plain mean until there were enough of them, so that the first weights fade.
        """
        self.weights.lerp_(weights, max(1 - self._decay, 1 / updates))

    @contextmanager
    def in_place(self, learner: Any) -> Iterator[None]:
        """Within it, the network of a learner that acts has the average of its weights."""
        state, name = learner.state, learner.acting
        own, state[name] = state[name], self.weights
        try:
            yield
        finally:
            state[name] = own


def acting_weights(learner: Any, explore: bool) -> AbstractContextManager[None]:
    """Within it, the network that acts has the average of its weights, unless it explores.

    Args:
        learner: Whose network; without an average, nothing changes.
        explore: Whether it explores.
    """
    average: WeightAverage | None = getattr(learner, "average", None)
    if average is None or explore:
        return nullcontext()
    return average.in_place(learner)
