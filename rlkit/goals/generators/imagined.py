"""Imagined goals: drawn from a latent model's prior, or from the goals achieved in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlkit.goals.generators.contract import GoalContext, check_number
from rlkit.goals.rule import Array, BoolArray

Source = Literal["prior", "visited"]
CANDIDATES, POOL = 1_000, 4_000  # goals that are weighted, and goals drawn of them at a time


@dataclass
class Imagined:
    """Draws goals from a prior, or from achieved goals, weighted by a power of their density.

    Sources: Nair et al. 2018, section 4.4 (goals from a VAE's prior, in episodes and in hindsight);
    Pong et al. 2020, equation 4 (`skew`). They take the density from the VAE's likelihood of an
    image; here it is a mean over other achieved goals of a Gaussian kernel as wide as the distance
    at which goals count as reached, so that no image has to be stored. They fit the VAE to the
    skewed images as well, which is not done here.
    """

    source: Source = "visited"
    """Where goals come from: the "prior" of a VAE, or the goals "visited" in training, which for a
    VAE fitted to them is the aggregate posterior."""
    skew: float = 0.0
    """Power of a visited goal's density by which it is drawn, in [-1, 0]: 0 as often as it was
    visited, -1 all visited regions alike (Pong et al. 2020, section 3.1)."""
    share: float = 1.0
    """Share of training episodes that pursue an imagined goal, in [0, 1]. The share that hindsight
    takes of them is set by `replay.hindsight`."""
    _context: GoalContext = field(init=False, repr=False, compare=False)
    _pool: Array = field(init=False, repr=False, compare=False)
    _version: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        if self.source not in get_args(Source):
            raise ValueError(
                f"imagined: source = {self.source!r} must be one of {list(get_args(Source))}"
            )
        check_number("imagined", "skew", self.skew, -1, 0)
        check_number("imagined", "share", self.share, 0, 1)
        if self.source == "prior" and self.skew != 0:
            raise ValueError(
                f"imagined: skew = {self.skew} weights visited goals, and these come from the "
                f'prior; set source = "visited" or skew = 0.0'
            )

    def attach(self, context: GoalContext) -> None:
        """Takes the agent's context; refuses a missing prior, or a rule without a distance."""
        if self.source == "prior" and not context.has_prior:
            raise ValueError(
                'imagined: source = "prior" needs goals that are latents of a model with a prior; '
                'set latent = "vae" and reward_source = "latent", or source = "visited"'
            )
        if self.skew != 0 and not hasattr(context.rule, "threshold"):
            raise ValueError(
                f"imagined: skew = {self.skew} needs a goal rule with a distance, `threshold`, and "
                f"{type(context.rule).__name__} has none; set skew = 0.0"
            )
        self._context = context
        self._pool = np.zeros((0, *(context.space.shape or ())), context.space.dtype)

    def propose(self, desired: Array, rng: np.random.Generator) -> Array:
        """Imagined goals `(n, *goal)`; the given ones while nothing was visited."""
        count = len(desired)
        if self.source == "prior":
            return rng.standard_normal(desired.shape, np.float32)
        if self._context.count() == 0:
            return desired
        if self.skew == 0:
            return self._context.achieved(count, rng)
        version = self._context.version()
        while len(self._pool) < count or self._version != version:
            if self._version != version:
                self._pool, self._version = self._pool[:0], version
            self._pool = np.concatenate([self._pool, self._skewed(rng)])
        drawn, self._pool = self._pool[:count], self._pool[count:]
        return drawn

    def _skewed(self, rng: np.random.Generator) -> Array:
        """Visited goals `(POOL, *goal)`, drawn by a power of their density."""
        goals = self._context.achieved(CANDIDATES, rng)
        threshold: float = self._context.rule.threshold  # type: ignore[attr-defined]
        weight = density(goals, threshold) ** self.skew
        chosen = rng.choice(len(goals), POOL, p=weight / weight.sum())
        return goals[chosen]

    def observe(self, goals: Array, achieved: Array, success: BoolArray) -> None:
        """Does nothing: visited goals are read from the replay buffer."""

    def state_dict(self) -> dict[str, Any]:
        """Goals that are drawn and not used yet."""
        return {"pool": self._pool, "version": self._version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._pool = np.array(state["pool"], self._pool.dtype)
        self._version = int(state["version"])


def density(goals: Array, width: float) -> NDArray[np.float64]:
    """Density of goals `(N, G)` around each of them, `(N,)`: the mean of a Gaussian kernel.

    Args:
        goals: `(N, G)`; each counts itself, too.
        width: Standard deviation of the kernel, in the units of the goals.
    """
    squares = np.einsum("nd,nd->n", goals, goals)
    apart = np.clip(squares[:, None] + squares - 2 * goals @ goals.T, 0, None)
    found: NDArray[np.float64] = np.exp(-apart.astype(np.float64) / (2 * width**2)).mean(1)
    return found
