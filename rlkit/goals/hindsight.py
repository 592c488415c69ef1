"""Which goals hindsight picks: achieved, imagined or original ones, and mixtures of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlkit.names import nearest

Strategy = Literal["future", "final", "episode", "random", "imagined", "original"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def mixture(weights: Mapping[str, float] | str, original: float = 0.2) -> dict[Strategy, float]:
    """A normalised mixture of strategies.

    Args:
        weights: Weight of each strategy, or the name of one.
        original: The share of goals that stay as they are where `weights` is a name. 0.2 is the HER
            paper's k = 4 (Andrychowicz et al. 2017, section 4.5).

    Raises:
        ValueError: If a strategy is unknown, or the weights are negative or all zero.
    """
    if isinstance(weights, str):
        rest = {} if weights == "original" else {"original": original}
        weights = {weights: 1.0 - sum(rest.values()), **rest}
    for name, weight in weights.items():
        if name not in STRATEGIES:
            raise ValueError(f"unknown hindsight strategy {name!r}. {nearest(name, STRATEGIES)}")
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {name!r} must be finite and >= 0, got {weight}")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"hindsight needs at least one positive weight, got {dict(weights)}")
    return {name: weights.get(name, 0.0) / total for name in STRATEGIES}


def choose_positions(
    strategy: NDArray[np.int64],
    position: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Observation positions, inside the same episode, whose achieved goals become desired.

    Source: Andrychowicz et al. 2017, section 4.5. "future" includes the step itself: the goal may
    be what this very action achieves, as in Stable-Baselines3.

    Args:
        strategy: Index into `STRATEGIES` per row, `(B,)`; rows of "random", "imagined" and
            "original" are answered as "future" and are the caller's to replace.
        position: Position of the step, `(B,)`.
        first: First observation position of its episode, `(B,)`.
        last: Last one, `(B,)`; greater than `position`.
        rng: The source of randomness.
    """
    low = np.where(strategy == STRATEGIES.index("episode"), first + 1, position + 1)
    low = np.where(strategy == STRATEGIES.index("final"), last, low)
    return rng.integers(low, last + 1)
