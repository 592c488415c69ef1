"""Replay: storage, windows, hindsight and n-step sums behind one `sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces

from rlkit.goals.env import is_goal_space
from rlkit.goals.hindsight import mixture
from rlkit.goals.rule import GoalRule
from rlkit.replay.batch import Array, Batch
from rlkit.replay.each import join_steps, split_steps
from rlkit.replay.latent_cache import LatentColumn, LatentEncoder
from rlkit.replay.relabel import Imagine, recompute_rewards, relabel
from rlkit.replay.returns import sum_steps
from rlkit.replay.shared import Share
from rlkit.replay.storage import EpisodeStorage, Positions
from rlkit.replay.window import cut_sequences, place

Goals = Literal["step", "window"]


class NonFiniteError(ValueError):
    """An environment gave NaN or infinity."""


class ReplayBuffer:
    """Remembers steps of many environments and samples windows, with hindsight.

    Args:
        observation_space: Space of one environment; hindsight needs the goal keys.
        action_space: Space of one environment's action as stored.
        capacity: Slots over all environments; an episode of T steps takes T + 1.
        num_envs: Environments that add in lockstep.
        rule: Judges relabelled goals; None switches hindsight off.
        hindsight: A strategy's name (with a fifth of the original goals) or weights, for example
            `{"future": 0.8, "original": 0.2}`. See `rlkit.goals.hindsight`.
        window: T, records per sampled window; None for whole episodes, as far as they are stored.
        burn_in: Records before each window that only prepare an agent's memory.
        goals: Whether hindsight draws one goal for the "window", burn-in included, or one for each
            "step". A goal per step is right for memory that reads no goals, and for no other.
        previous_action: Whether batches hold the actions that led to their observations.
        previous_reward: Whether they hold the rewards that came with them; rewritten by hindsight.
        hidden_state: Shapes of the arrays of an agent's memory. With them `add` takes the memory
            of every step, and batches hold that of their windows' beginnings, as it was then.
        share: Whether the achieved goal and the observation are stored as one, and must then be
            equal in every step; "auto" does so where both are pictures, the same space of uint8
            with at least 3 axes. Batches hold one array under both keys then.
        directory: Folder on a local disk where observations live, for those that are larger than
            memory; None keeps them in memory. What is sampled is the same.
        latent_encoder: Encodes images as latents. The replay buffer stores the images and caches
            their latents; batches hold latents of the encoder's current version. None stores and
            returns every key as it is.
        judge_anew: Whether rewards of original goals are worked out by `rule` again when they are
            sampled: where the rule depends on a latent encoder, stored ones are of old versions.
        imagine: Draws the goals of the strategy "imagined", which needs it.
        steps: n of the n-step sums.
        gamma: Discount of one step, used by the n-step sums.
        seed: Seed of the replay's own generator.

    Raises:
        ValueError: If an argument is out of range, hindsight is asked of a space without goals, or
            there is no room for a full replay.
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
        window: int | None = 1,
        burn_in: int = 0,
        goals: Goals = "window",
        previous_action: bool = False,
        previous_reward: bool = False,
        hidden_state: Sequence[tuple[int, ...]] = (),
        share: Share = "auto",
        directory: str | Path | None = None,
        latent_encoder: LatentEncoder | None = None,
        recompute_rewards: bool = False,
        imagine: Imagine | None = None,
        steps: int = 1,
        gamma: float = 0.99,
        seed: int | np.random.SeedSequence | None = None,
    ) -> None:
        if (window is not None and window < 1) or steps < 1:
            raise ValueError(f"window and steps must be at least 1, got {window} and {steps}")
        if burn_in < 0 or (burn_in and window is None):
            raise ValueError(
                f"burn_in must be at least 0, and 0 with window=None, whose episodes have nothing "
                f"before them; got {burn_in} with window={window}"
            )
        if goals not in get_args(Goals):
            raise ValueError(f"goals must be one of {get_args(Goals)}, got {goals!r}")
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
        self.storage = EpisodeStorage(
            observation_space,
            action_space,
            capacity,
            num_envs,
            hidden_state,
            share,
            directory,
            latent_encoder,
        )
        if rule is not None and not is_goal_space(observation_space):
            raise ValueError(f"hindsight needs goal keys, but the space is {observation_space}")
        self.rule = rule
        self.recompute_rewards = recompute_rewards
        self.weights, self.imagine = mixture(hindsight), imagine
        if self.weights["imagined"] > 0 and imagine is None:
            raise ValueError(
                f"hindsight = {hindsight} asks for imagined goals, and nothing imagines any: an "
                f'agent does with a latent model, reward_source = "latent" and imagination = '
                f"{{...}}"
            )
        if (
            previous_reward
            and goals == "step"
            and rule is not None
            and self.weights["original"] < 1
        ):
            raise ValueError(
                'previous_reward needs goals="window": rewards that memory reads depend on the '
                'goal, so a relabelled window must have one goal. Or set hindsight = "original"'
            )
        self.window, self.burn_in, self.goals = window, burn_in, goals
        self.inputs = {"previous_action": previous_action, "previous_reward": previous_reward}
        self.reads_sequences = (
            window != 1 or burn_in > 0 or any(self.inputs.values()) or bool(hidden_state)
        )
        self.steps, self.gamma = steps, gamma
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
        hidden_state: Sequence[Array] | None = None,
    ) -> None:
        """Appends one step of every environment; see `EpisodeStorage.add`.

        Raises:
            NonFiniteError: If an observation or reward is NaN or infinite. Nothing is stored then.
            ValueError: If the memory is not of the shapes that this replay keeps, or what is
                stored as one differs. Nothing is stored then.
        """
        check_finite("reward", reward)
        check_finite("observation", next_observation)
        if self.storage.begins.any():  # the others were another step's next observation
            check_finite("observation", observation)
        self.storage.add(
            observation, action, reward, terminated, truncated, next_observation, hidden_state
        )

    def sample(self, count: int) -> Batch:
        """Draws `count` windows around steps drawn uniformly from all that are stored.

        A window of one record is the step itself. Longer ones lie anywhere around it, and whole
        episodes are drawn as often as they have steps.

        Returns:
            A batch `(count, burn_in + window, ...)`, relabelled, with `bootstrap` and `discount`.

        Raises:
            ValueError: If nothing is stored yet.
        """
        env, step = self.storage.sample_steps(count, self.rng)
        batch = self._windows(env, step)
        if self.rule is None:
            return sum_steps(batch, self.gamma, self.steps)
        if self.recompute_rewards:
            batch = recompute_rewards(batch, self.rule)
        if self.goals == "window":
            return self._hindsight(batch, env)
        alone, places = split_steps(batch, self.steps)
        alone = self._hindsight(alone, env[places[0]])
        return join_steps(sum_steps(batch, self.gamma, self.steps), alone, places)

    def _windows(self, env: Array, step: Positions) -> Batch:
        if not self.reads_sequences:
            return self.storage.window(env, step, self.steps)
        bounds = self.storage.episode_bounds(env, step)
        start, length = place(step, bounds, self.window, self.rng)
        length += self.steps - 1
        return cut_sequences(
            self.storage, env, start, bounds, length, burn_in=self.burn_in, **self.inputs
        )

    def _hindsight(self, batch: Batch, env: Array) -> Batch:
        assert self.rule is not None
        batch = relabel(batch, env, self.storage, self.rule, self.weights, self.rng, self.imagine)
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

    def invalidate_latents(self) -> None:
        """Drops all cached latents: another encoder may use the same version numbers."""
        for column in self.storage.seen.values():
            if isinstance(column, LatentColumn):
                column.latents.invalidate()
        if self.storage.goals is not None and self.storage.goals.latents is not None:
            self.storage.goals.latents.invalidate()


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
