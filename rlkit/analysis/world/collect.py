"""Experience for world models: random actions in an environment, some of them going on for long."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from rlkit.analysis.world.columns import Columns
from rlkit.goals import is_goal_space, vectorise
from rlkit.latents import FittedLatent
from rlkit.replay import check_finite
from rlkit.vec.vec_env import MakeEnv, make_vec_env
from rlkit.world import Episodes, Layout

SHORTEST, LONGEST = 3.0, 30.0  # steps over which actions are correlated
_ENVS = 16
_STEPS_EACH = 100  # of an environment, at least: a few long episodes rather than many cut ones
Array = NDArray[Any]


class Explorer:
    """Random actions, in a share of the episodes correlated in time.

    Every single action is uniform in both cases. Correlated ones are so over a time that is
    drawn for each episode, and reach further than independent ones. Boxes follow a Gaussian
    process through its distribution function; other spaces repeat the last action at random.

    Args:
        space: Of one action.
        count: n, environments.
        share: Of the episodes that are correlated, in [0, 1].
        seed: Of everything random.
    """

    def __init__(self, space: spaces.Space[Any], count: int, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of correlated actions lies in [0, 1], got {share}")
        self._space, self._share = space, share
        self._rng = np.random.default_rng(seed)
        space.seed(seed)
        self._correlation = np.zeros(count)
        self._last: Array | None = None

    def act(self, is_first: NDArray[np.bool_]) -> Array:
        """Actions `(n, *action)`; `is_first (n,)` marks where an episode begins."""
        fresh = int(is_first.sum())
        time = np.exp(self._rng.uniform(np.log(SHORTEST), np.log(LONGEST), fresh))
        correlated = self._rng.random(fresh) < self._share
        self._correlation[is_first] = np.where(correlated, np.exp(-1 / time), 0.0)
        if isinstance(self._space, spaces.Box):
            return self._drifting(self._space, is_first)
        count = len(is_first)
        drawn = np.stack([self._space.sample() for _ in range(count)])
        if self._last is not None:
            kept = (self._rng.random(count) < self._correlation) & ~is_first
            drawn[kept] = self._last[kept]
        self._last = drawn
        return drawn.copy()

    def _drifting(self, space: spaces.Box, is_first: NDArray[np.bool_]) -> Array:
        noise = self._rng.standard_normal((len(is_first), *space.shape))
        if self._last is None:
            self._last = noise
        correlation = np.where(is_first, 0.0, self._correlation).reshape(
            -1, *[1] * len(space.shape)
        )
        self._last = correlation * self._last + np.sqrt(1 - correlation**2) * noise
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = np.isfinite(low) & np.isfinite(high)
        span = np.where(bounded, high, 1.0) - np.where(bounded, low, 0.0)
        share = torch.special.ndtr(torch.from_numpy(self._last)).numpy()
        inside = np.where(bounded, low, 0.0) + span * share
        return np.where(bounded, inside, np.clip(self._last, low, high)).astype(space.dtype)


def gather_episodes(
    env_id: str,
    make: MakeEnv,
    steps: int,
    seed: int,
    *,
    correlated: float = 0.5,
    latent: FittedLatent | None = None,
    arguments: dict[str, Any] | None = None,
) -> tuple[Episodes, Layout, tuple[str, ...]]:
    """Collects episodes of random actions in an environment.

    Args:
        env_id: The id.
        make: Builds one environment from its id.
        steps: How many, at least; the episodes that run then are cut.
        seed: Of environments and actions.
        correlated: Share of the episodes whose actions are correlated in time.
        latent: Encodes images.
        arguments: The environment's.

    Returns:
        Episodes with their rewards, which columns are what, and the columns' names. Rewards and
        terminations are outcomes to predict where there is no goal rule.

    Raises:
        ValueError: If the environment is unknown, has images and there is no latent model, or
            returns numbers that are not finite.
    """
    count = int(np.clip(steps // _STEPS_EACH, 1, _ENVS))
    with closing(make_vec_env(make, env_id, count, seed=seed, **(arguments or {}))) as venv:
        columns = Columns.of(env_id, venv.observation_space, latent)
        outcomes = () if is_goal_space(venv.observation_space) else ("reward", "terminated")
        layout = columns.layout(venv.action_space, outcomes)
        explorer = Explorer(venv.action_space, count, correlated, seed)
        return _collected(venv, columns, explorer, -(-steps // count)), layout, columns.names


def _collected(venv: VecEnv, columns: Columns, explorer: Explorer, rounds: int) -> Episodes:
    observed = columns(venv.reset())
    is_first = np.ones(venv.num_envs, np.bool_)
    table: dict[str, list[Array]] = {
        key: [] for key in ("observed", "last", "action", "reward", "terminated", "done")
    }
    for _ in range(rounds):
        actions = explorer.act(is_first)
        observation, reward, is_first, infos = venv.step(actions)
        next_observation = columns(observation)
        last, terminated = next_observation.copy(), is_first.copy()
        for i in np.flatnonzero(is_first).tolist():
            last[i] = columns(_rows_of_one(infos[i]["terminal_observation"]))[0]
            terminated[i] = not infos[i].get("TimeLimit.truncated", False)
        check_finite("observation", last)
        check_finite("reward", reward)
        row = (observed, last, vectorise(venv.action_space, actions, 1), reward.copy(), terminated)
        for key, value in zip(table, (*row, is_first.copy()), strict=True):
            table[key].append(value)
        observed = next_observation
    whole = {key: np.stack(rows, 1) for key, rows in table.items()}
    whole["done"][:, -1] = True
    return Episodes.of([one for i in range(venv.num_envs) for one in _episodes(whole, i)])


def _episodes(whole: dict[str, Array], env: int) -> list[dict[str, Array]]:
    """The episodes of one environment, from tables `(n, rounds, ...)`."""
    rows = {key: table[env] for key, table in whole.items()}
    ends = np.flatnonzero(rows["done"]) + 1
    found = []
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        part = {key: rows[key][start:stop] for key in ("action", "reward", "terminated")}
        observed = np.concatenate([rows["observed"][start:stop], rows["last"][stop - 1 : stop]])
        found.append({"observation": observed, **part})
    return found


def _rows_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return np.asarray(observation)[None]
