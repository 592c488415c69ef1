"""The replay buffer as a Stable-Baselines3 buffer, for its SAC, TD3 and DQN.

SAC("MultiInputPolicy", env, replay_buffer_class=HindsightReplayBuffer,
    replay_buffer_kwargs={"rule": goal_rule(env)})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer as SB3ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from rlkit.goals.rule import GoalRule
from rlkit.replay.batch import Array
from rlkit.replay.columns import Share
from rlkit.replay.replay_buffer import ReplayBuffer
from rlkit.replay.storage import EpisodeStorage


class HindsightReplayBuffer(SB3ReplayBuffer):
    """Hindsight for Stable-Baselines3's agents, without a live environment.

    Unlike `HerReplayBuffer` it stores each observation once, samples from unfinished episodes,
    recomputes terminations of relabelled goals, ends n-step sums at them, and can be pickled.

    Args:
        buffer_size: Steps over all environments.
        observation_space: A Dict with the goal keys.
        action_space: Space of one environment's action.
        device: Where samples go.
        n_envs: Environments that add in lockstep.
        optimize_memory_usage: Must stay False; observations are stored once in any case.
        handle_timeout_termination: Whether a step at a time limit still bootstraps.
        rule: Computes rewards of relabelled goals, see `rlkit.goals.goal_rule`; pickled with it.
        hindsight: A strategy's name or weights, as in `rlkit.replay.ReplayBuffer`.
        already_achieved_weight: Weight of relabelled steps whose goal is satisfied before the
            action, in (0, 1]; see `rlkit.replay.goal_weights`.
        out_of_range_weight: Weight of those whose goal lies outside the range of goals asked.
        share: Whether the achieved goal and the observation are stored once, as in
            `rlkit.replay.ReplayBuffer`.
        n_steps: n of the n-step sums.
        gamma: Discount of one step; the agent's own, needed where `n_steps` exceeds 1.
        seed: Seed of the buffer's generator; None ties it to the agent's seed.

    Raises:
        ValueError: If an argument is out of range, or the space has no goal keys.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        rule: GoalRule,
        hindsight: Mapping[str, float] | str = "future",
        already_achieved_weight: float = 1.0,
        out_of_range_weight: float = 1.0,
        share: Share = "auto",
        n_steps: int = 1,
        gamma: float = 0.99,
        seed: int | None = None,
    ) -> None:
        # The parent would allocate arrays of its own; its parent knows spaces and device only.
        super(SB3ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs
        )
        if optimize_memory_usage:
            raise ValueError(
                "leave optimize_memory_usage=False: this buffer stores each observation once anyway"
            )
        if seed is None:
            # Stable-Baselines3 seeds torch from the agent's seed just before it builds its buffer.
            seed = int(th.randint(2**62, ()).item())
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        self.replay = ReplayBuffer(
            observation_space,
            action_space,
            buffer_size,
            num_envs=n_envs,
            rule=rule,
            hindsight=hindsight,
            already_achieved_weight=already_achieved_weight,
            out_of_range_weight=out_of_range_weight,
            share=share,
            steps=n_steps,
            gamma=gamma,
            seed=seed,
        )
        self.buffer_size = max(buffer_size // n_envs, 1)

    def size(self) -> int:
        """Stored steps per environment, as the parent counts them."""
        return len(self.replay) // self.n_envs

    def reset(self) -> None:
        """Removes every step."""
        super().reset()
        storage = self.replay.storage
        self.replay.storage = EpisodeStorage(
            self.observation_space,
            self.action_space,
            storage.capacity,
            self.n_envs,
            share=bool(storage.aliases),
        )
        if self.replay.goal_weights is not None:
            self.replay.goal_weights.forget()

    def add(  # type: ignore[override]
        self,
        obs: dict[str, Array],
        next_obs: dict[str, Array],
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """Appends one step of every environment.

        Args:
            obs: Observations `(n_envs, ...)` by key.
            next_obs: Those after the step; at an episode's end its last one.
            action: `(n_envs, *action)`.
            reward: `(n_envs,)`.
            done: Whether the episode ended, `(n_envs,)`.
            infos: `TimeLimit.truncated` marks an end by a time limit.

        Raises:
            NonFiniteError: If an observation or reward is NaN or infinite.
        """
        if not self.handle_timeout_termination:
            infos = [{} for _ in infos]
        self.replay.add_step(obs, next_obs, action, reward, done, infos)
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        """Draws steps, relabelled; the next observation has the goal of the step itself.

        Args:
            batch_size: Number of steps B.
            env: Normalises observations and rewards, after relabelling.

        Returns:
            Tensors `(B, ...)`; `discounts` is set where n-step sums are.

        Raises:
            ValueError: If nothing is stored yet.
        """
        batch = self.replay.sample(batch_size)
        assert batch.desired_goal is not None
        assert batch.bootstrap is not None
        assert batch.discount is not None
        rows, bootstrap = np.arange(batch_size), batch.bootstrap[:, 0]
        goal = {"desired_goal": batch.desired_goal[:, 0]}
        before = {key: part[:, 0] for key, part in batch.observation.items()} | goal
        after = {key: part[rows, bootstrap] for key, part in batch.observation.items()} | goal
        action = batch.action.reshape(batch_size, self.action_dim)
        return DictReplayBufferSamples(
            observations=self._tensors(before, env),
            actions=self.to_torch(action.astype(self._maybe_cast_dtype(action.dtype))),
            next_observations=self._tensors(after, env),
            dones=self.to_torch(batch.terminated.astype(np.float32)),
            rewards=self.to_torch(self._normalize_reward(batch.reward, env)),
            discounts=None if self.replay.steps == 1 else self.to_torch(batch.discount),
        )

    def _tensors(
        self, observation: dict[str, Array], env: VecNormalize | None
    ) -> dict[str, th.Tensor]:
        assert isinstance(self.obs_shape, dict)
        normal = self._normalize_obs(observation, env)
        return {
            key: self.to_torch(normal[key].reshape(-1, *shape))
            for key, shape in self.obs_shape.items()
        }
