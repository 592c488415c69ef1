"""Goals that nobody asked for: codes drawn from a latent model's prior, or from what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlkit.names import require_known
from rlkit.offpolicy.observation_encoder import DESIRED
from rlkit.offpolicy.spaces import ObservationEncoder
from rlkit.replay import EpisodeStorage

Array = NDArray[Any]
Source = Literal["prior", "visited"]
CANDIDATES, POOL = 1_000, 4_000  # codes that are weighed, and goals drawn of them at a time
SHOWN = 48  # goals in a picture


@dataclass(frozen=True)
class Imagining:
    """How an agent imagines goals, in the code of its latent model."""

    source: Source = "visited"
    """Where they come from: the "prior" of a VAE, or what was "visited" in training, which is the
    aggregate posterior of a model that is fitted to that."""
    skew: float = 0.0
    """Power of a code's density by which visited ones are drawn, in [-1, 0]: 0 as often as they
    were visited, -1 all that was visited alike (Pong et al. 2020, section 3.1)."""
    share: float = 1.0
    """Share of training episodes that pursue an imagined goal, in [0, 1]; the others pursue the
    environment's. How many goals hindsight imagines is its own matter: `replay.hindsight`."""

    def __post_init__(self) -> None:
        """Refuses values out of range, by name."""
        if self.source not in get_args(Source):
            raise ValueError(
                f"imagination: source = {self.source!r} must be one of {list(get_args(Source))}"
            )
        for name, low, high in (("skew", -1, 0), ("share", 0, 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(
                    f"imagination: {name} = {value!r} must be a number in [{low}, {high}]"
                )
        if self.source == "prior" and self.skew != 0:
            raise ValueError(
                f"imagination: skew = {self.skew} weighs what was visited, and goals come from the "
                f'prior; set source = "visited" or skew = 0.0'
            )


class Imagination:
    """Draws goals for training episodes and for hindsight.

    Sources: Nair et al. 2018, section 4.4 (goals from the prior, in episodes and in hindsight);
    Pong et al. 2020, equation 4 (`skew`). They take the density from the VAE's likelihood of a
    picture; here it is the share of other visited codes around a code, by a kernel as wide as the
    distance at which goals count as reached, so that no picture has to be kept. They fit the VAE to
    the skewed pictures as well, which is not done here.

    Args:
        plan: How.
        sight: Whose codes these are, and who judges them.

    Raises:
        ValueError: If nothing but the environment can judge goals, or the model has no prior.
    """

    def __init__(self, plan: Imagining, sight: ObservationEncoder) -> None:
        if sight.latent is None or sight.latent_rule is None:
            raise ValueError(
                "imagination makes codes, which no environment can judge: set reward_source = "
                '"latent"'
            )
        if sight.latent_encoder is not None:
            raise ValueError(
                "imagined goals are codes without a picture, of which a refresh could not make "
                "new ones: set pretraining.refresh_every = 0, or leave out imagination"
            )
        if plan.source == "prior":
            blank = np.zeros((1, *sight.latent.shape), np.uint8)
            if not (sight.latent.posterior(blank)[1] > 0).all():
                raise ValueError(
                    f"{type(sight.latent.model).__name__} has no prior to imagine goals from; set "
                    f'latent = "vae", or imagination = {{source = "visited"}}'
                )
        self.plan, self.latent, self.rule = plan, sight.latent, sight.latent_rule
        self.storage: EpisodeStorage | None = None
        self._pool = np.zeros((0, sight.latent.dims), np.float32)
        self._version = 0

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Imagined goals `(count, D)`; for hindsight, `rlkit.replay.relabelling.DrawGoals`."""
        if self.plan.source == "prior":
            return rng.standard_normal((count, self.latent.dims), np.float32)
        assert self.storage is not None
        if self.plan.skew == 0:
            env, step = self.storage.sample_steps(count, rng)
            return self.storage.achieved(self.storage.flat(env, step + 1))
        while len(self._pool) < count or self._version != self.latent.version:
            if self._version != self.latent.version:
                self._pool, self._version = self._pool[:0], self.latent.version
            self._pool = np.concatenate([self._pool, self._skewed(rng)])
        drawn, self._pool = self._pool[:count], self._pool[count:]
        return drawn

    def _skewed(self, rng: np.random.Generator) -> Array:
        """Visited codes `(POOL, D)`, the rarer the likelier."""
        assert self.storage is not None
        env, step = self.storage.sample_steps(CANDIDATES, rng)
        codes = self.storage.achieved(self.storage.flat(env, step + 1))
        weight = density(codes, self.rule.threshold) ** self.plan.skew
        chosen = rng.choice(len(codes), POOL, p=weight / weight.sum())
        goals: Array = codes[chosen]
        return goals

    def ask(
        self, seen: Any, before: Any, fresh: NDArray[np.bool_], rng: np.random.Generator
    ) -> Any:
        """What environments show, with the goals that are pursued instead of theirs.

        Args:
            seen: Observations as `ObservationEncoder.see` gives them, of `n` environments.
            before: Those of the step before; None at the very beginning.
            fresh: Which of them begin an episode, `(n,)`.
            rng: The source of randomness.
        """
        goals = seen[DESIRED] if before is None else before[DESIRED]
        new = fresh & (rng.random(len(fresh)) < self.plan.share)
        goals = np.where(fresh[:, None], seen[DESIRED], goals)
        if new.any() and (self.plan.source == "prior" or len(self.storage or ()) > 0):
            goals[new] = self.draw(int(new.sum()), rng)
        return {**seen, DESIRED: goals}

    def pictures(self) -> Array | None:
        """Decoded goals as the agent draws them now, `(SHOWN, H, W, C)` in [0, 1], to look at.

        None where nothing was visited yet, the latent model has no decoder, or observations are
        vectors. It does not affect training.
        """
        visits = self.plan.source == "visited"
        shows = self.latent.decodes and len(self.latent.shape) == 3
        if not shows or (visits and len(self.storage or ()) == 0):
            return None
        rng = np.random.default_rng(0)
        skewed = visits and self.plan.skew != 0
        return self.latent.decode(self._skewed(rng)[:SHOWN] if skewed else self.draw(SHOWN, rng))

    def state_dict(self) -> dict[str, Any]:
        """Goals that are drawn and not used yet."""
        return {"pool": self._pool, "version": self._version}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self._pool = np.array(state["pool"], np.float32)
        self._version = int(state["version"])


def density(codes: Array, width: float) -> NDArray[np.float64]:
    """How dense codes `(N, D)` lie around each, `(N,)`, itself included: a Gaussian kernel's mean.

    Args:
        codes: `(N, D)`.
        width: Of the kernel, in the units of the codes.
    """
    squares = np.einsum("nd,nd->n", codes, codes)
    apart = np.clip(squares[:, None] + squares - 2 * codes @ codes.T, 0, None)
    found: NDArray[np.float64] = np.exp(-apart.astype(np.float64) / (2 * width**2)).mean(1)
    return found


def imagination_of(options: Mapping[str, Any], sight: ObservationEncoder) -> Imagination | None:
    """What an agent imagines with, None for nothing; raises a ValueError for unknown options."""
    if not options:
        return None
    require_known("imagination", options, {field.name for field in fields(Imagining)})
    return Imagination(Imagining(**options), sight)
