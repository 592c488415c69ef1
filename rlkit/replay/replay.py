"""Replay: storage, windows, hindsight and n-step sums behind one `sample`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlkit.goals.env import is_goal_space
from rlkit.goals.hindsight import mixture
from rlkit.goals.rule import GoalRule
from rlkit.replay.batch import Array, Batch
from rlkit.replay.relabel import relabel
from rlkit.replay.returns import sum_steps
from rlkit.replay.storage import EpisodeStorage


class NonFiniteError(ValueError):
    """An environment gave NaN or infinity."""


class Replay:
    """Remembers steps of many environments and samples windows, with hindsight.

    Args:
        observation_space: Space of one environment; hindsight needs the goal keys.
        action_space: Space of one environment's action as stored.
        capacity: Slots over all environments; an episode of T steps takes T + 1.
        num_envs: Environments that add in lockstep.
        rule: Judges relabelled goals; None switches hindsight off.
        hindsight: A strategy's name (with a fifth of the goals as played) or weights, for example
            `{"future": 0.8, "played": 0.2}`. See `rlkit.goals.hindsight`.
        window: T, records per sampled window.
        steps: n of the n-step sums.
        gamma: Discount of one step, used by the n-step sums.
        seed: Seed of the replay's own generator.

    Raises:
        ValueError: If an argument is out of range, or hindsight is asked of a space without goals.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        capacity: int,
        *,
        num_envs: int = 1,
        rule: GoalRule | None = None,
        hindsight: Mapping[str, float] | str = "future",
        window: int = 1,
        steps: int = 1,
        gamma: float = 0.99,
        seed: int | np.random.SeedSequence | None = None,
    ) -> None:
        if window < 1 or steps < 1:
            raise ValueError(f"window and steps must be at least 1, got {window} and {steps}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
        self.storage = EpisodeStorage(observation_space, action_space, capacity, num_envs)
        if rule is not None and not is_goal_space(observation_space):
            raise ValueError(f"hindsight needs goal keys, but the space is {observation_space}")
        self.rule = rule
        self.weights = mixture(hindsight)
        self.window, self.steps, self.gamma = window, steps, gamma
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.storage)

    def add(
        self,
        observation: Any,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        next_observation: Any,
    ) -> None:
        """Appends one step of every environment; see `EpisodeStorage.add`.

        Raises:
            NonFiniteError: If an observation or reward is NaN or infinite. Nothing is stored then.
        """
        check_finite("reward", reward)
        check_finite("observation", next_observation)
        if self.storage.begins.any():  # the others were another step's next observation
            check_finite("observation", observation)
        self.storage.add(observation, action, reward, terminated, truncated, next_observation)

    def sample(self, count: int) -> Batch:
        """Draws `count` windows, uniformly over the stored steps that they begin with.

        Returns:
            A batch `(count, window, ...)`, relabelled, with `bootstrap` and `discount` set.

        Raises:
            ValueError: If nothing is stored yet.
        """
        env, position = self.storage.sample_steps(count, self.rng)
        batch = self.storage.window(env, position, self.window + self.steps - 1)
        if self.rule is None:
            return sum_steps(batch, self.gamma, self.steps)
        batch = relabel(batch, env, self.storage, self.rule, self.weights, self.rng)
        return sum_steps(batch, self.gamma, self.steps, self._successes(batch))

    def _successes(self, batch: Batch) -> Array | None:
        if self.steps == 1:
            return None
        assert self.rule is not None
        assert batch.desired_goal is not None
        goal = batch.desired_goal
        rows = goal.shape[:2]
        achieved = batch.observation["achieved_goal"][:, 1:]
        flat = self.rule.success(
            achieved.reshape(-1, *goal.shape[2:]), goal.reshape(-1, *goal.shape[2:])
        )
        return flat.reshape(rows)

    def state_dict(self) -> dict[str, Any]:
        """Everything that sampling depends on, the generator included."""
        return {"storage": self.storage.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If the state belongs to other spaces or another capacity.
        """
        self.storage.load_state_dict(state["storage"])
        self.rng.bit_generator.state = state["rng"]


def check_finite(name: str, value: Any) -> None:
    """Raises `NonFiniteError` if an array, or one in a dict, holds NaN or infinity."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_finite(f"{name}[{key!r}]", part)
        return
    array = np.asarray(value)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise NonFiniteError(
            f"the environment's {name} is {array[place]} at index {place}; training stopped before "
            f"it could reach the weights. Find its cause with `rlkit check-env`."
        )
