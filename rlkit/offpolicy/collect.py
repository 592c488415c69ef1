"""Collecting experience. No other module knows how vector environments reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from rlkit.goals import require_shapes
from rlkit.goals.failure import NonFiniteError
from rlkit.networks.encoders import HiddenState
from rlkit.offpolicy.goal_diagnostics import goal_moved
from rlkit.offpolicy.spaces import copy_observation, put_row
from rlkit.replay import check_finite
from rlkit.vec.checked_vec_env import require_finite_actions

if TYPE_CHECKING:
    from rlkit.offpolicy.algorithm import Algorithm


def collect(agent: Algorithm, callback: BaseCallback, log_interval: int | None) -> bool:
    """Steps the environments until the next update is due; False where a callback stops.

    Raises:
        NonFiniteError: If an observation or reward is NaN or infinite; nothing of it is stored.
        FloatingPointError: If the agent's action is; the environments do not get it.
        ValueError: If an observation has another shape than its space.
    """
    assert agent.env is not None
    assert isinstance(agent.train_freq, TrainFreq)
    callback.on_rollout_start()
    frequency, unit = agent.train_freq
    steps = episodes = 0
    while (steps if unit == TrainFrequencyUnit.STEP else episodes) < frequency:
        agent.before_step(steps)
        hidden_state = agent.hidden_state
        stored = _actions(agent)
        require_finite_actions(stored)
        new_obs, rewards, dones, infos = agent.env.step(agent.adapter.to_env(stored))
        require_shapes(agent.observation_space, new_obs, (agent.n_envs,))
        new_obs = agent.observation_encoder.to_stored(new_obs)
        if agent.episode_goals is not None:
            new_obs = agent.episode_goals.replace(new_obs, agent._last_obs, dones, agent.rng)
        agent.num_timesteps += agent.n_envs * agent.action_repeat
        agent.observation_encoder.age += agent.n_envs * agent.action_repeat
        steps += 1
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        agent._update_info_buffer(infos, dones)
        try:
            _store(agent, hidden_state, stored, rewards, dones, infos, new_obs)
        except NonFiniteError:
            agent.num_timesteps -= agent.n_envs * agent.action_repeat
            raise
        agent._update_current_progress_remaining(agent.num_timesteps, agent._total_timesteps)
        for _ in range(int(np.sum(dones))):
            episodes += 1
            agent._episode_num += 1
            if log_interval is not None and agent._episode_num % log_interval == 0:
                agent.dump_logs()
    callback.on_rollout_end()
    return True


def first_observations(agent: Algorithm, first: Any) -> Any:
    """First observations of all environments as stored, with the goals of their episodes."""
    require_shapes(agent.observation_space, first, (agent.n_envs,))
    stored = agent.observation_encoder.to_stored(first)
    if agent.episode_goals is None:
        return stored
    return agent.episode_goals.replace(stored, None, np.ones(agent.n_envs, np.bool_), agent.rng)


def cut_episodes(agent: Algorithm, seed: int) -> None:
    """Ends running episodes as truncated, and begins new ones; `seed` is that of environments."""
    assert agent.env is not None
    agent.episodes_cut += int((~agent.replay_buffer.storage.begins).sum())
    agent.replay_buffer.storage.cut()
    agent.env.seed(seed)
    agent._last_obs = first_observations(agent, agent.env.reset())
    agent._last_episode_starts = np.ones(agent.n_envs, np.bool_)


def restart_episodes(agent: Algorithm, env: Any) -> None:
    """Goes on in other environments of the same kind; running episodes end as truncated.

    It is for environments that have failed, whose state is unknown. Seeds come from the agent's
    generator, so that what failed before is not begun again.
    """
    agent.set_env(env)
    cut_episodes(agent, int(agent.rng.integers(2**31)))
    if agent.action_noise is not None:
        agent.action_noise.reset()


def _actions(agent: Algorithm) -> NDArray[Any]:
    """Actions to store: random at first, then the policy's with some random ones."""
    is_random_phase, starts = agent.is_random_phase, agent._last_episode_starts
    assert starts is not None
    if is_random_phase and not agent.hidden_state:
        if agent.held_actions is not None:
            return agent.held_actions.uniform(starts, agent.rng)
        return agent.adapter.random_actions(agent.n_envs, agent.rng)
    observation = agent.observation_encoder.from_stored(agent._last_obs)
    action, agent.hidden_state = agent.act(observation, agent.hidden_state, starts, explore=True)
    if agent.explorer is not None and not is_random_phase:
        action = agent.explorer.act(agent, observation, action, starts)
    space = agent.action_space
    if isinstance(space, spaces.Box) and agent.action_noise is not None:
        noise = np.asarray(agent.action_noise())
        noise = noise.reshape(*noise.shape[: noise.ndim - len(space.shape)], -1)
        action = np.clip(action + noise, -1, 1).astype(np.float32)
    share = 1.0 if is_random_phase else agent.random_fraction()
    if agent.held_actions is None:
        action = agent.adapter.mix_in_random(action, share, agent.rng)
    else:  # some may still be held where the share is 0
        action = agent.held_actions.mixed(action, share, starts, agent.rng)
    changed = is_random_phase or share > 0 or agent.held_actions or agent.explorer
    if changed or agent.action_noise is not None:
        agent.hidden_state = agent.learner.acted(agent.hidden_state, action)
    return action


def _store(
    agent: Algorithm,
    hidden_state: HiddenState,
    stored: NDArray[Any],
    rewards: NDArray[Any],
    dones: NDArray[np.bool_],
    infos: list[dict[str, Any]],
    new_obs: Any,
) -> None:
    """Adds a step to the replay buffer; where an episode ended, with its own last observation."""
    encoder, goals = agent.observation_encoder, agent.episode_goals
    next_observation, truncated = _last_observations(agent, dones, infos, new_obs)
    encoded = encoder.from_stored(next_observation)
    rewards, terminated = encoder.reward(rewards, agent._last_obs, encoded), dones & ~truncated
    if goals is not None:
        rewards, terminated = goals.outcome(agent._last_obs, encoded, rewards, terminated)
        truncated = dones & ~terminated
    agent.replay_buffer.add(
        agent._last_obs,
        stored,
        rewards,
        terminated,
        truncated,
        next_observation,
        hidden_state=agent.learner.to_store(hidden_state),
    )
    for i in np.flatnonzero(dones).tolist():
        if "worker_lost" in infos[i]:  # the step was never taken
            agent.replay_buffer.storage.retract(i)
    taken = np.array([i for i in np.flatnonzero(dones) if "worker_lost" not in infos[i]], np.int64)
    if goals is not None:
        goals.observe(agent._last_obs, encoded, taken)
    if agent.replay_buffer.rule is not None and len(taken):
        agent.metrics.add_episodes(goal_moved(agent, taken))
    rows, goal_rows = agent.adapter.normaliser_rows(encoded)
    agent.learner.observe(rows, goal_rows)
    if agent.explorer is not None:
        before = encoder.from_stored(agent._last_obs)
        agent.explorer.observe(before, encoded, rows, dones, agent.rule)
    agent.metrics.add_step(rewards, encoded, dones, agent.rule)
    agent._last_obs = new_obs
    agent._last_episode_starts = dones
    if isinstance(agent.action_noise, VectorizedActionNoise):
        agent.action_noise.reset(np.flatnonzero(dones).tolist())
    elif agent.action_noise is not None and dones.any():
        agent.action_noise.reset()


def _last_observations(
    agent: Algorithm, dones: NDArray[np.bool_], infos: list[dict[str, Any]], new_obs: Any
) -> tuple[Any, NDArray[np.bool_]]:
    """Observations after a step (the last ones where an episode ended), and which are truncated."""
    encoder, truncated = agent.observation_encoder, np.zeros(agent.n_envs, np.bool_)
    if not dones.any():
        return new_obs, truncated
    check_finite("observation", new_obs)  # of new episodes, before acting on it
    next_observation = copy_observation(new_obs)
    for i in np.flatnonzero(dones).tolist():
        truncated[i] = infos[i].get("TimeLimit.truncated", False)
        last = infos[i]["terminal_observation"]
        require_shapes(agent.observation_space, last, name="last observation of an episode")
        last = encoder.to_stored_one(last)
        put_row(next_observation, i, last)
        # The environment's success is that of its own goal.
        is_own = agent.episode_goals is None and "is_success" in infos[i]
        if is_own and isinstance(agent._last_obs, dict):
            goal = agent._last_obs.get("desired_goal")
            if goal is not None:
                success = bool(infos[i]["is_success"])
                agent.metrics.add_goal(encoder.readable_goal(goal[i]), success)
    return next_observation, truncated
