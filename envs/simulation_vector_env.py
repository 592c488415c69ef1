"""The native vector environment of a `Simulation`, equal to a `SyncVectorEnv` of single ones.

Row i of a vector environment reset with seed s equals, step for step and bit for bit, a single
environment reset with seed s + i.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rlkit.envs.simulation import (
    NO_RENDER_MODE,
    RENDER_SIZE,
    Observation,
    Saved,
    Simulation,
    State,
    after_reset,
    checked_actions,
    checked_rows,
    env_metadata,
    goals,
    observe,
)

_NO_ROWS = np.empty(0, np.intp)
_UNKNOWN_SEED = -1  # as in Gymnasium, of a generator whose state was set


class SimulationVectorEnv(gym.vector.VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """A simulation as a native vector environment.

    It gives what `SyncVectorEnv` gives with single environments: observations, rewards, flags,
    infos and their masks `_key` `(N,)`. `is_success` `(N,)` refers to the observation returned with
    it. In steps that end episodes, same-step autoreset adds `final_obs` (an object array `(N,)` of
    the observations before the reset, None elsewhere) and `final_info`.

    Args:
        simulation: The physics.
        num_envs: Number of environments, N.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: `SAME_STEP` returns the next episode's first observation together with the
            last reward; `NEXT_STEP` uses a step of reward 0 for the reset; with `DISABLED`, rows
            are restarted by `reset(options={"reset_mask": ...})`.
        render_mode: "rgb_array" or None.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        simulation: Simulation,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.simulation = simulation
        self.rule = simulation.rule
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.metadata = env_metadata(simulation, render_mode) | {
            "autoreset_mode": self.autoreset_mode
        }
        self.single_observation_space = simulation.observation_space
        self.single_action_space = simulation.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: State | None = None
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)
        self._generators: dict[int, np.random.Generator] = {}
        self._seeds: dict[int, int] = {}

    @property  # type: ignore[misc]  # Gymnasium's has a setter, SyncVectorEnv's has none
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generator of each environment."""
        self._seed([None] * self.num_envs, range(self.num_envs))
        return tuple(self._generators[i] for i in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each environment; -1 where a state was set."""
        self._seed([None] * self.num_envs, range(self.num_envs))
        return tuple(self._seeds[i] for i in range(self.num_envs))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts all episodes, or some of them.

        Args:
            seed: Environment i is seeded with `seed + i`, or with `seed[i]`; None keeps its random
                generator.
            options: `reset_mask`, a bool array `(N,)`, says which episodes are started; all
                without. Other options are not used.

        Raises:
            ValueError: If the number of seeds is not the number of environments, or the mask has
                another shape or chooses none.
            TypeError: If the mask is not a bool array.
        """
        mask = _reset_mask(options, self.num_envs)
        if not mask.all():
            after_reset(self._state, "reset() of some environments")
        rows = np.flatnonzero(mask)
        self._seed(self._one_each(seed), rows)
        if mask.all():
            self._state = self.simulation.initial(self._uniforms(rows))
        else:
            self._restart(rows)
        self._elapsed = np.where(mask, 0, self._elapsed)
        self._ended = self._ended & ~mask
        observation = observe(self.simulation, after_reset(self._state, "reset"))
        success = self.rule.success(*goals(observation)) & mask
        return observation, {"is_success": success, "_is_success": mask.copy()}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Steps every environment, and resets those whose episode ended as the mode says.

        Args:
            actions: One action per row, `(N, *action)`.

        Raises:
            ResetNeeded: If there was no reset, or autoreset is disabled and an episode has ended.
            TypeError: If a single number is given.
            ValueError: If the actions do not have the space's shape, or are not finite.
        """
        if np.ndim(actions) == 0:
            raise TypeError(f"step needs {self.num_envs} actions, one per environment: {actions!r}")
        actions = checked_actions(actions, self.single_action_space, (self.num_envs,))
        state = after_reset(self._state, "step")
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        pending = _NO_ROWS if same_step else np.flatnonzero(self._ended)
        if self.autoreset_mode is AutoresetMode.DISABLED and len(pending):
            raise gym.error.ResetNeeded(
                f"the episodes of environments {pending.tolist()} have ended: "
                f'call reset(options={{"reset_mask": terminated | truncated}}) before step()'
            )
        self._state = self.simulation.step(state, actions)
        self._elapsed = self._elapsed + 1
        self._restart(pending)
        observation = observe(self.simulation, self._state)
        achieved = goals(observation)
        reward = np.array(self.rule.reward(*achieved), dtype=np.float64)
        terminated = np.array(self.rule.terminated(*achieved))
        if len(pending):
            reward[pending] = 0.0
            terminated[pending] = False
        limit = self.max_episode_steps
        truncated = np.zeros_like(terminated) if limit is None else self._elapsed >= limit
        success = np.array(self.rule.success(*achieved))
        self._ended = terminated | truncated
        infos: dict[str, Any] = {}
        rows = np.flatnonzero(self._ended) if same_step else _NO_ROWS
        if len(rows):
            infos = self._final(observation, success, rows)
            self._restart(rows)
            observation = observe(self.simulation, self._state)
            success[rows] = False  # no start state satisfies its goal
        infos["is_success"], infos["_is_success"] = success, np.ones(self.num_envs, np.bool_)
        return observation, reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One RGB image `(480, 480, 3)` per environment, as `RecordVideo` expects."""
        if self.render_mode is None:
            gym.logger.warn(NO_RENDER_MODE)
            return None
        state = after_reset(self._state, "render")
        rows = [
            {name: value[i : i + 1] for name, value in state.items()} for i in range(self.num_envs)
        ]
        return tuple(self.simulation.render(row, RENDER_SIZE) for row in rows)

    def get_state(self) -> Saved:
        """A copy of all that is needed to continue bit for bit, random generators included."""
        return {
            "simulation": copy.deepcopy(after_reset(self._state, "get_state")),
            "elapsed": self._elapsed.copy(),
            "ended": self._ended.copy(),
            "generators": {
                str(i): copy.deepcopy(generator.bit_generator.state)
                for i, generator in enumerate(self.np_random)
            },
        }

    def set_state(self, state: Saved) -> None:
        """Continues from a state that `get_state` returned, in this or another process.

        Raises:
            ValueError: If the state is one of another number of environments.
        """
        self._state = checked_rows(state["simulation"], self.num_envs)
        self._elapsed = np.array(state["elapsed"])
        self._ended = np.array(state["ended"])
        for i, generator in enumerate(self.np_random):
            generator.bit_generator.state = copy.deepcopy(state["generators"][str(i)])
            self._seeds[i] = _UNKNOWN_SEED

    def _one_each(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"reset got {len(seed)} seeds for {self.num_envs} environments")
        return [None if one is None else operator.index(one) for one in seed]

    def _seed(self, seeds: Sequence[int | None], rows: Iterable[int]) -> None:
        for i in rows:
            if seeds[i] is not None or i not in self._generators:
                self._generators[i], self._seeds[i] = np_random(seeds[i])

    def _uniforms(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        uniforms = np.empty((len(rows), self.simulation.draws))
        for row, i in enumerate(rows.tolist()):
            self._generators[i].random(out=uniforms[row])
        return uniforms

    def _restart(self, rows: NDArray[np.intp]) -> None:
        if not len(rows):
            return
        fresh = self.simulation.initial(self._uniforms(rows))
        # A simulation may share arrays between consecutive states, so this writes to copies.
        state = {name: value.copy() for name, value in after_reset(self._state, "step").items()}
        for name, value in state.items():
            value[rows] = fresh[name]
        self._state = state
        self._elapsed[rows] = 0

    def _final(
        self, observation: Observation, success: NDArray[np.bool_], rows: NDArray[np.intp]
    ) -> dict[str, Any]:
        last = np.full(self.num_envs, None, dtype=object)
        for i in rows.tolist():
            last[i] = {name: value[i] for name, value in observation.items()}
        return {
            "final_obs": last,
            "_final_obs": self._ended.copy(),
            "final_info": {
                "is_success": success & self._ended,
                "_is_success": self._ended.copy(),
            },
            "_final_info": self._ended.copy(),
        }


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> NDArray[np.bool_]:
    if options is None or "reset_mask" not in options:
        return np.ones(num_envs, np.bool_)
    mask = options["reset_mask"]
    name = "`options['reset_mask']` must"  # the errors are those of SyncVectorEnv
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"{name} be a numpy array, got {type(mask)}")
    if mask.shape != (num_envs,):
        raise ValueError(f"{name} have shape `({num_envs},)`, got {mask.shape}")
    if mask.dtype != np.bool_:
        raise TypeError(f"{name} have `dtype=np.bool_`, got {mask.dtype}")
    if not mask.any():
        raise ValueError(
            f"{name} contain a boolean array with at least one True value, got reset_mask={mask}"
        )
    return mask
