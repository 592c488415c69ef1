"""Single and vector environments of a `Simulation`.

Row i of a vector environment reset with seed s equals, step for step and bit for bit, a single
environment reset with seed s + i.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from rlkit.envs.simulation import Simulation, State
from rlkit.goals import GoalEnv

_RENDER_SIZE = 480  # pixels; video encoders need an even number
_NO_RENDER_MODE = 'render() gives no image: make the environment with render_mode="rgb_array"'

Observation = dict[str, NDArray[Any]]
Saved = dict[str, Any]
"""State that can be saved: arrays, and dicts of arrays, numbers and strings."""


class SimulationEnv(GoalEnv[Any]):
    """A simulation as a single `gym.Env`.

    Args:
        simulation: The physics.
        render_mode: "rgb_array" or None.
        max_episode_steps: Time limit of the task itself, which depends on the task's arguments.
            With None, only the `TimeLimit` that `gym.make` adds truncates episodes.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (as in gym.Env)

    def __init__(
        self,
        simulation: Simulation,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.simulation = simulation
        self.rule = simulation.rule
        self.observation_space = simulation.observation_space
        self.action_space = simulation.action_space
        self.metadata = _metadata(simulation, render_mode)
        self.render_mode = render_mode
        self.max_episode_steps = max_episode_steps
        self._elapsed = 0
        self._state: State | None = None

    @classmethod
    def vector(
        cls,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> SimulationVectorEnv:
        """A vector environment of `num_envs` copies of this environment.

        Args:
            num_envs: Number of environments, N.
            max_episode_steps: Steps after which an episode is truncated. It can shorten a time
                limit of the task itself, but not extend it.
            autoreset_mode: As in `SimulationVectorEnv`.
            render_mode: "rgb_array" or None.
            arguments: Arguments of this class.
        """
        env = cls(**arguments)
        limits = [n for n in (env.max_episode_steps, max_episode_steps) if n is not None]
        return SimulationVectorEnv(
            env.simulation, num_envs, min(limits, default=None), autoreset_mode, render_mode
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode with a random start state and goal; `options` are not used."""
        super().reset(seed=seed)
        uniforms = self.np_random.random(self.simulation.draws)
        self._state = self.simulation.initial(uniforms[None])
        self._elapsed = 0
        batch = _observe(self.simulation, self._state)
        return _first_row(batch), {"is_success": bool(self.rule.success(*_goals(batch))[0])}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Applies one action; reward and termination refer to the goal achieved after it.

        Raises:
            ValueError: If the action does not have the space's shape, or is not finite.
        """
        actions = _checked(action, self.action_space, ())[None]
        self._state = self.simulation.step(_after_reset(self._state, "step"), actions)
        self._elapsed += 1
        batch = _observe(self.simulation, self._state)
        goals = _goals(batch)
        return (
            _first_row(batch),
            float(self.rule.reward(*goals)[0]),
            bool(self.rule.terminated(*goals)[0]),
            self.max_episode_steps is not None and self._elapsed >= self.max_episode_steps,
            {"is_success": bool(self.rule.success(*goals)[0])},
        )

    def render(self) -> NDArray[np.uint8] | None:
        """RGB image `(480, 480, 3)`, or None with a warning if there is no render mode."""
        if self.render_mode is None:
            gym.logger.warn(_NO_RENDER_MODE)
            return None
        return self.simulation.render(_after_reset(self._state, "render"), _RENDER_SIZE)

    def get_state(self) -> Saved:
        """A copy of all that is needed to continue bit for bit, random generator included."""
        return {
            "simulation": copy.deepcopy(_after_reset(self._state, "get_state")),
            "elapsed": np.array(self._elapsed),
            "generator": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: Saved) -> None:
        """Continues from a state that `get_state` returned, in this or another process."""
        self._state = _checked_rows(state["simulation"], 1)
        self._elapsed = int(state["elapsed"])
        self.np_random.bit_generator.state = copy.deepcopy(state["generator"])


class SimulationVectorEnv(gym.vector.VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """A simulation as a native vector environment.

    The infos follow Gymnasium and are batched. `is_success` `(N,)` refers to the state before an
    automatic reset. In steps that end episodes, same-step autoreset adds `final_obs` (a dict of
    `(N, ...)`) and `final_info`, whose rows are valid where `_final_obs` and `_final_info` are
    True.

    Args:
        simulation: The physics.
        num_envs: Number of environments, N.
        max_episode_steps: Steps after which an episode is truncated; None for never.
        autoreset_mode: `SAME_STEP` returns the next episode's first observation together with the
            last reward; `NEXT_STEP` uses a step of reward 0 for the reset.
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
        if self.autoreset_mode is AutoresetMode.DISABLED:
            raise ValueError("autoreset_mode must be SAME_STEP or NEXT_STEP, got DISABLED")
        self.simulation = simulation
        self.rule = simulation.rule
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.metadata = _metadata(simulation, render_mode) | {"autoreset_mode": self.autoreset_mode}
        self.single_observation_space = simulation.observation_space
        self.single_action_space = simulation.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: State | None = None
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)
        self._generators: list[np.random.Generator] = []

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts all episodes; environment i is seeded with `seed + i`, or with `seed[i]`.

        Raises:
            ValueError: If the number of seeds is not the number of environments.
        """
        if seed is not None or not self._generators:
            self._generators = self._seeded(seed)
        self._state = self.simulation.initial(self._uniforms(range(self.num_envs)))
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)
        observation = _observe(self.simulation, self._state)
        return observation, self._infos(self.rule.success(*_goals(observation)))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Steps every environment and resets those whose episode ended.

        Args:
            actions: One action per row, `(N, *action)`.

        Raises:
            ValueError: If the actions do not have the space's shape, or are not finite.
        """
        actions = _checked(actions, self.single_action_space, (self.num_envs,))
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        self._state = self.simulation.step(_after_reset(self._state, "step"), actions)
        self._elapsed = self._elapsed + 1
        was_reset = self._ended
        if not same_step:
            self._reset_rows(was_reset)
        observation = _observe(self.simulation, self._state)
        goals = _goals(observation)
        reward = np.array(self.rule.reward(*goals), dtype=np.float64)
        terminated = np.array(self.rule.terminated(*goals))
        limit = self.max_episode_steps
        truncated = np.zeros_like(terminated) if limit is None else self._elapsed >= limit
        infos = self._infos(self.rule.success(*goals))
        self._ended = terminated | truncated
        if not same_step:
            reward[was_reset] = 0.0
        elif self._ended.any():
            infos |= self._final(observation, infos)
            self._reset_rows(self._ended)
            observation = _observe(self.simulation, self._state)
        return observation, reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One RGB image `(480, 480, 3)` per environment, as `RecordVideo` expects."""
        if self.render_mode is None:
            gym.logger.warn(_NO_RENDER_MODE)
            return None
        state = _after_reset(self._state, "render")
        rows = [
            {name: value[i : i + 1] for name, value in state.items()} for i in range(self.num_envs)
        ]
        return tuple(self.simulation.render(row, _RENDER_SIZE) for row in rows)

    def get_state(self) -> Saved:
        """A copy of all that is needed to continue bit for bit, random generators included."""
        return {
            "simulation": copy.deepcopy(_after_reset(self._state, "get_state")),
            "elapsed": self._elapsed.copy(),
            "ended": self._ended.copy(),
            "generators": {
                str(i): copy.deepcopy(generator.bit_generator.state)
                for i, generator in enumerate(self._generators)
            },
        }

    def set_state(self, state: Saved) -> None:
        """Continues from a state that `get_state` returned, in this or another process.

        Raises:
            ValueError: If the state is one of another number of environments.
        """
        self._state = _checked_rows(state["simulation"], self.num_envs)
        self._elapsed = np.array(state["elapsed"])
        self._ended = np.array(state["ended"])
        if not self._generators:
            self._generators = self._seeded(0)
        for i, generator in enumerate(self._generators):
            generator.bit_generator.state = copy.deepcopy(state["generators"][str(i)])

    def _seeded(self, seed: int | Sequence[int | None] | None) -> list[np.random.Generator]:
        seeds: Sequence[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset got {len(seeds)} seeds for {self.num_envs} environments")
        return [np_random(one)[0] for one in seeds]

    def _uniforms(self, rows: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float64]:
        uniforms = np.empty((len(rows), self.simulation.draws))
        for row, i in enumerate(rows):
            self._generators[i].random(out=uniforms[row])
        return uniforms

    def _reset_rows(self, where: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(where)
        if not len(rows):
            return
        fresh = self.simulation.initial(self._uniforms(rows))
        # A simulation may share arrays between consecutive states, so this writes to copies.
        state = {name: value.copy() for name, value in _after_reset(self._state, "step").items()}
        for name, value in state.items():
            value[rows] = fresh[name]
        self._state = state
        self._elapsed[rows] = 0

    def _infos(self, success: NDArray[np.bool_]) -> dict[str, Any]:
        return {"is_success": np.array(success), "_is_success": np.ones(self.num_envs, np.bool_)}

    def _final(self, observation: Observation, infos: dict[str, Any]) -> dict[str, Any]:
        return {
            "final_obs": observation,
            "_final_obs": self._ended.copy(),
            "final_info": {
                "is_success": infos["is_success"].copy(),
                "_is_success": self._ended.copy(),
            },
            "_final_info": self._ended.copy(),
        }


def _metadata(simulation: Simulation, render_mode: str | None) -> dict[str, Any]:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
    return {
        "render_modes": ["rgb_array"],
        "render_fps": simulation.frames_per_second,
        "goal_names": getattr(simulation, "goal_names", ()),
    }


def _observe(simulation: Simulation, state: State) -> Observation:
    # A copy, because users may write to it; C order, because the rule may round by the layout.
    return {name: np.array(value, order="C") for name, value in simulation.observe(state).items()}


def _goals(batch: Observation) -> tuple[NDArray[Any], NDArray[Any]]:
    return batch["achieved_goal"], batch["desired_goal"]


def _first_row(batch: Observation) -> Observation:
    return {name: value[0] for name, value in batch.items()}


def _after_reset(state: State | None, call: str) -> State:
    if state is None:
        raise gym.error.ResetNeeded(f"call reset() before {call}()")
    return state


def _checked(action: ArrayLike, space: spaces.Space[Any], batch: tuple[int, ...]) -> NDArray[Any]:
    actions = np.asarray(action)
    shape = batch + (space.shape or ())
    if actions.shape != shape:
        raise ValueError(f"the action must have shape {shape}, got {actions.shape}: {action!r}")
    if isinstance(space, spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
        if actions.dtype.kind not in "iu" or ((actions < low) | (actions > high)).any():
            raise ValueError(f"the action must be an integer from {low} to {high}, got {action!r}")
    elif not np.isfinite(actions).all():
        raise ValueError(f"the action must be finite, got {actions[~np.isfinite(actions)][:3]}")
    return actions.astype(space.dtype)


def _checked_rows(state: State, rows: int) -> State:
    for name, value in state.items():
        if len(value) != rows:
            raise ValueError(f"the state's {name!r} has {len(value)} rows instead of {rows}")
    return {name: np.array(value) for name, value in state.items()}
