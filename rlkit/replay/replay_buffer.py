"""The replay buffer: storage, windows, hindsight and n-step sums behind one `sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlkit.goals.env import is_goal_space
from rlkit.goals.rule import FurtherTerms, GoalRule
from rlkit.replay.batch import Array, Batch, sum_steps
from rlkit.replay.columns import Share, check_finite, split_goal
from rlkit.replay.goal_weights import CANDIDATES, GoalWeights, choose
from rlkit.replay.latent_cache import LatentColumn, LatentEncoder, LatentGoalTable
from rlkit.replay.relabelling import (
    DrawnGoals,
    ProposeGoals,
    draw_goals,
    join_steps,
    mixture,
    recompute_rewards,
    relabel,
    split_steps,
)
from rlkit.replay.samplers import SAMPLERS, PrioritySampler, ReplaySampler
from rlkit.replay.storage import Bounds, EpisodeStorage, Positions, read_sequences
from rlkit.replay.stored_steps import StoredSteps

Goals = Literal["step", "window"]


@dataclass(frozen=True)
class UniformSampler:
    """Draws all stored steps alike; see `rlkit.replay.ReplaySampler`."""

    def draw(
        self, storage: EpisodeStorage, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Positions]:
        """Environments and positions of stored steps, `(count,)` each."""
        return storage.sample_steps(count, rng)

    def update(self, env: NDArray[np.int64], position: Positions, value: NDArray[Any]) -> None:
        """Does nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing."""


class ReplayBuffer(StoredSteps):
    """Stores steps of many environments and samples windows of them, with hindsight.

    Args:
        observation_space: Space of one environment; hindsight needs the goal keys.
        action_space: Space of one environment's action as stored.
        capacity: Slots over all environments; an episode of T steps takes T + 1.
        num_envs: Environments that add in lockstep.
        rule: Computes rewards of relabelled goals; None switches hindsight off.
        hindsight: A strategy's name (with a fifth of the original goals) or weights, for example
            `{"future": 0.8, "original": 0.2}`. See `rlkit.replay.relabelling`.
        window: T, records per sampled window; None for whole episodes, as far as they are stored.
        burn_in: Records before each window that only prepare a recurrent encoder's hidden state.
        goals: Whether hindsight draws one goal for the "window", burn-in included, or one for each
            "step". A goal per step is right for encoders that read no goals, and for no others.
        previous_action: Whether batches hold the actions that led to their observations.
        previous_reward: Whether they hold the rewards that came with them; rewritten by hindsight.
        hidden_state: Shapes of the arrays of an agent's hidden state. With them `add` takes the
            hidden state of every step, and batches hold the one before their first observation.
        share: Whether the achieved goal and the observation are stored once, and must then be
            equal in every step; "auto" does so where both are images, the same space of uint8
            with at least 3 axes. Batches hold one array under both keys then.
        directory: Folder on a local disk for observations that exceed memory; None keeps them in
            memory. Samples are the same.
        latent_encoder: Encodes images as latents. The replay buffer stores the images and caches
            their latents; batches hold latents of the encoder's current version. None stores and
            returns every key as it is.
        recompute_rewards: Whether `rule` computes rewards of original goals again when they are
            sampled: where the rule depends on a latent encoder, stored ones are of old versions.
        sampler: Chooses the stored steps that batches are drawn around: a name, a mapping with a
            name and settings, or a `rlkit.replay.ReplaySampler`; None draws uniformly.
        propose_goals: Proposes the goals of the strategy "generated", which needs it.
        already_achieved_weight: Weight of relabelled steps whose goal is satisfied before the
            action, in (0, 1]; see `rlkit.replay.goal_weights`.
        out_of_range_weight: Weight of relabelled steps whose goal lies outside the range of goals
            that episodes were asked for so far, in (0, 1].
        steps_to_goal: Whether batches hold the steps until relabelled goals were achieved.
        steps: n of the n-step sums.
        gamma: Discount of one step, used by the n-step sums.
        seed: Seed of the buffer's own generator.

    Raises:
        ValueError: If an argument is out of range, hindsight is used with a space without goals,
            or there is no room for a full buffer.
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
        sampler: str | Mapping[str, Any] | ReplaySampler | None = None,
        propose_goals: ProposeGoals | None = None,
        already_achieved_weight: float = 1.0,
        out_of_range_weight: float = 1.0,
        steps_to_goal: bool = False,
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
        self.has_keys = isinstance(observation_space, spaces.Dict)
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
        has_goals = is_goal_space(observation_space)  # a loaded agent gets its rule with an env
        if rule is not None and not has_goals:
            raise ValueError(f"hindsight needs goal keys, but the space is {observation_space}")
        self.rule = rule
        self.recompute_rewards = recompute_rewards
        self.weights, self.propose_goals = mixture(hindsight), propose_goals
        if self.weights["generated"] > 0 and propose_goals is None:
            raise ValueError(
                f"hindsight = {hindsight} needs a goal generator: set the agent's goal_generator"
            )
        if previous_reward and goals == "step" and rule and self.weights["original"] < 1:
            raise ValueError(
                'previous_reward needs goals="window": rewards that an encoder reads depend on the '
                'goal, so a relabelled window must have one goal. Or set hindsight = "original"'
            )
        if previous_reward and isinstance(rule, FurtherTerms):
            raise ValueError(
                "previous_reward does not go with further_terms: the rewards that an encoder reads "
                "are computed by the goal rule, which knows the goal's part alone"
            )
        goal_weights = GoalWeights(
            already_achieved_weight,
            out_of_range_weight,
            split_goal(observation_space)[1] if has_goals else None,
        )
        self.goal_weights = goal_weights if goal_weights.is_on else None
        self.steps_to_goal = steps_to_goal and has_goals
        self.window, self.burn_in, self.goals = window, burn_in, goals
        self.inputs = {"previous_action": previous_action, "previous_reward": previous_reward}
        self.reads_sequences = (
            window != 1 or burn_in > 0 or any(self.inputs.values()) or bool(hidden_state)
        )
        self.sampler = SAMPLERS.make(UniformSampler() if sampler is None else sampler)
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
            ValueError: If the hidden state has other shapes than this buffer keeps, or keys that
                are stored once differ. Nothing is stored then.
        """
        check_finite("reward", reward)
        check_finite("observation", next_observation)
        if self.storage.begins.any():  # the others were the last step's next observation
            check_finite("observation", observation)
        self.storage.add(
            observation, action, reward, terminated, truncated, next_observation, hidden_state
        )
        if self.goal_weights is not None:
            self.goal_weights.observe(np.asarray(observation["desired_goal"]))

    def sample(self, count: int) -> Batch:
        """Draws `count` windows around steps that the sampler draws.

        A window of one record is the step itself. Longer ones lie anywhere around it, and a uniform
        sampler draws whole episodes as often as they have steps.

        Returns:
            A batch `(count, burn_in + window, ...)`, relabelled, with `bootstrap` and `discount`.

        Raises:
            ValueError: If nothing is stored yet.
        """
        drawn = None
        if self.rule is None or self.goal_weights is None or self.reads_sequences:
            env, step = self.sampler.draw(self.storage, count, self.rng)
        else:
            env, step, drawn = self._chosen(count, self.rule, self.goal_weights)
        batch = self._relabelled(self._windows(env, step), drawn)
        if not isinstance(self.sampler, PrioritySampler):
            return batch
        return batch.replace(importance=self.sampler.importance(self.storage, env, step))

    def _relabelled(self, batch: Batch, drawn: DrawnGoals | None) -> Batch:
        """The windows with their goals, summed over n steps."""
        if self.rule is None:
            return sum_steps(batch, self.gamma, self.steps)
        if self.recompute_rewards:
            batch = recompute_rewards(batch, self.rule)
        if self.goals == "window" or drawn is not None:
            return self._hindsight(batch, drawn)
        single, index = split_steps(batch, self.steps)
        return join_steps(sum_steps(batch, self.gamma, self.steps), self._hindsight(single), index)

    def update_priorities(self, batch: Batch, value: Array) -> None:
        """Gives the sampler a learner's numbers, such as absolute TD errors.

        Args:
            batch: From `sample`, or a part of it.
            value: A number per window, `(B,)`, which belongs to its first record after the burn-in.
                Or one for each record after the burn-in, `(B, T - burn_in)`, where the sampler is a
                `PrioritySampler`: it makes one of a window's that count, for all of their steps.

        Raises:
            TypeError: If the sampler does not take numbers of records.
        """
        if value.ndim == 1:
            self.sampler.update(batch.env, batch.position, value)
            return
        if not isinstance(self.sampler, PrioritySampler):
            raise TypeError(f"{type(self.sampler).__name__} takes a number per window, not more")
        mask = batch.mask[:, batch.burn_in :]
        rows, columns = np.nonzero(mask)
        priority = self.sampler.window_priority(value, mask)
        self.sampler.update(batch.env[rows], batch.position[rows] + columns, priority[rows])

    def _chosen(
        self, count: int, rule: GoalRule, goal_weights: GoalWeights
    ) -> tuple[Array, Positions, DrawnGoals]:
        """Steps chosen by the weights of their goals: environments, positions, goals."""
        candidates, storage = CANDIDATES * count, self.storage
        env, step = self.sampler.draw(storage, candidates, self.rng)
        drawn = self._draw_goals(env, step)
        weight = np.ones(candidates, np.float32)
        if len(drawn.rows):
            achieved = storage.achieved(storage.flat(env[drawn.rows], step[drawn.rows]))
            weight[drawn.rows] = goal_weights.weigh(rule, achieved, drawn.goal)
        chosen = choose(weight, count, self.rng)
        return env[chosen], step[chosen], drawn.of(chosen, candidates)

    def _draw_goals(self, env: Array, step: Positions) -> DrawnGoals:
        return draw_goals(env, step, self.storage, self.weights, self.rng, self.propose_goals)

    def _windows(self, env: Array, step: Positions) -> Batch:
        if not self.reads_sequences:
            return self.storage.window(env, step, self.steps)
        bounds = self.storage.episode_bounds(env, step)
        start, length = choose_windows(step, bounds, self.window, self.rng)
        length += self.steps - 1
        return read_sequences(
            self.storage, env, start, bounds, length, burn_in=self.burn_in, **self.inputs
        )

    def _hindsight(self, batch: Batch, drawn: DrawnGoals | None = None) -> Batch:
        """The windows relabelled, with goals that are drawn now unless they are given."""
        assert self.rule is not None
        weights = None  # of given goals are used up
        if drawn is None:
            weights, drawn = self.goal_weights, self._draw_goals(batch.env, batch.position)
        batch = relabel(batch, drawn, self.rule, weights, self.steps_to_goal)
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
        return {
            "storage": self.storage.state_dict(),
            "sampler": self.sampler.state_dict(),
            "rng": self.rng.bit_generator.state,
            **({} if self.goal_weights is None else {"asked": self.goal_weights.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: If the state belongs to other spaces or another capacity.
        """
        self.storage.load_state_dict(state["storage"])
        self.sampler.load_state_dict(state["sampler"])
        self.rng.bit_generator.state = state["rng"]
        if self.goal_weights is not None and self.storage.goals is not None:
            self.goal_weights.load_state_dict(state.get("asked", {}), self.storage.goals.kept())

    def invalidate_latents(self) -> None:
        """Drops all cached latents: another encoder may use the same version numbers."""
        for part in (*self.storage.columns.values(), self.storage.goals):
            if isinstance(part, LatentColumn | LatentGoalTable):
                part.latents.invalidate()


def choose_windows(
    step: Positions, bounds: Bounds, window: int | None, rng: np.random.Generator
) -> tuple[Positions, int]:
    """Where the windows begin that contain the given steps, and how many records they have.

    A window lies anywhere around its step, moved so far into the episode that it is full if the
    episode is long enough.

    Args:
        step: Positions of steps, `(B,)`.
        bounds: Those of their episodes.
        window: T; None for whole episodes, as long as the longest of them. Nothing is drawn for
            None and 1.
        rng: The source of randomness.
    """
    first, last = bounds
    if window is None:
        return first, int((last - first).max())
    if window == 1:
        return step, 1
    start = step - rng.integers(0, window, size=len(step))
    return np.clip(start, first, np.maximum(first, last - window)), window
