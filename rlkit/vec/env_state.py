"""The whole state of environments, wrappers included, as plain data for a checkpoint.

An environment supports it by the methods `get_state()` and `set_state(state)`, and so does a custom
wrapper that keeps data between steps. If any part does not support it, the state is None, and a
resumed run has to cut that episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecTransposeImage,
)

from rlkit.goals import ActionRepeat, GoalWrapper, SimpleSpaces
from rlkit.vec.trail import Trail, failed

State = dict[str, Any]
"""Plain data: dict, list, str, int, float, bool, None and NumPy arrays."""


@runtime_checkable
class HasState(Protocol):
    """An environment, wrapper or vector environment that can be saved and continued exactly."""

    def get_state(self) -> State:
        """Everything that evolves, as plain data that later steps do not change."""

    def set_state(self, state: State) -> None:
        """Continues from a state; what follows is a function of it alone, bit for bit."""


class Stateful(gym.Wrapper[Any, Any, Any, Any]):
    """Gives the state of everything below it to `SubprocVecEnv`, which can only call methods.

    It must be the outermost wrapper. An exception from below becomes an `EnvironmentFailed`, which
    says where, and what the environment was given until then.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.trail = Trail()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        self.trail.reset(seed)
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise failed(error, self.env, self.trail) from error

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self.trail.step(action)
        try:
            return self.env.step(action)
        except Exception as error:
            raise failed(error, self.env, self.trail) from error

    def get_full_state(self) -> State | None:
        """`env_state` of the environment."""
        return env_state(self.env)

    def set_full_state(self, state: State) -> None:
        """`set_env_state` of the environment."""
        set_env_state(self.env, state)


def env_state(env: gym.Env[Any, Any]) -> State | None:
    """The state of an environment and its wrappers, or None if a part has none to give."""
    layers = _layers(env)
    if layers is None:
        return None
    wrapper_states = [[type(layer).__name__, _read(layer)] for layer in layers]
    # `get_state` must copy, since the environment keeps writing to its own arrays.
    return {"wrappers": wrapper_states, "env": cast(HasState, env.unwrapped).get_state()}


def set_env_state(env: gym.Env[Any, Any], state: State) -> None:
    """Restores `env_state` in an environment with the same wrappers.

    Raises:
        ValueError: If the wrappers differ from the saved ones, or a part cannot restore a state.
    """
    layers = _layers(env)
    if layers is None:
        raise ValueError(
            f"{env} cannot restore a state: the environment and every wrapper that keeps data "
            f"between steps need get_state() and set_state(state)"
        )
    current = [type(layer).__name__ for layer in layers]
    saved = [name for name, _ in state["wrappers"]]
    if current != saved:
        raise ValueError(
            f"the state was saved with the wrappers {saved}, the environment has {current}; "
            f"build it with the saved ones"
        )
    # Innermost first: a wrapper may read what it wraps.
    cast(HasState, env.unwrapped).set_state(state["env"])
    for layer, (_, saved_state) in reversed(list(zip(layers, state["wrappers"], strict=True))):
        _write(layer, saved_state)
    if isinstance(env, Stateful):
        env.trail.begin(None)


def vec_env_state(venv: VecEnv) -> list[State | None]:
    """One entry per environment; None where the state is not available.

    For a vector environment with a state of its own, the first entry holds all of it and the others
    are empty.
    """
    venv = _without_stateless(venv)
    if isinstance(venv, VecEnvWrapper):
        return [None] * venv.num_envs
    if isinstance(venv, HasState):
        whole: State | None = venv.get_state()
        return [whole, *(None if whole is None else {} for _ in range(venv.num_envs - 1))]
    if isinstance(venv, DummyVecEnv):
        return [env_state(env) for env in venv.envs]
    if isinstance(venv, SubprocVecEnv) and venv.has_attr("get_full_state"):
        states: list[State | None] = venv.env_method("get_full_state")
        return states
    return [None] * venv.num_envs


def set_vec_env_state(venv: VecEnv, states: Sequence[State | None]) -> None:
    """Restores `vec_env_state`; environments whose entry is None are left unchanged.

    Raises:
        ValueError: If the states do not fit the environments.
    """
    venv = _without_stateless(venv)
    if len(states) != venv.num_envs:
        raise ValueError(f"got {len(states)} states for {venv.num_envs} environments")
    present = {index: state for index, state in enumerate(states) if state is not None}
    if not present:
        return
    if isinstance(venv, HasState):
        if 0 not in present:
            raise ValueError("the first entry, which holds the state of all, is missing")
        venv.set_state(present[0])
    elif isinstance(venv, DummyVecEnv):
        for index, state in present.items():
            set_env_state(venv.envs[index], state)
    elif isinstance(venv, SubprocVecEnv) and venv.has_attr("set_full_state"):
        for index, state in present.items():
            venv.env_method("set_full_state", state, indices=[index])
    else:
        raise ValueError(f"{type(venv).__name__} cannot restore the state of its environments")


def _without_stateless(venv: VecEnv) -> VecEnv:
    while isinstance(venv, VecTransposeImage):
        venv = venv.venv
    return venv


def _layers(env: gym.Env[Any, Any]) -> list[gym.Wrapper[Any, Any, Any, Any]] | None:
    """The wrappers, outermost first; None if a part has no state to give."""
    layers: list[gym.Wrapper[Any, Any, Any, Any]] = []
    while isinstance(env, gym.Wrapper):
        if not _is_known(env):
            return None
        layers.append(env)
        env = env.env
    return layers if isinstance(env, HasState) else None


def _is_known(layer: gym.Wrapper[Any, Any, Any, Any]) -> bool:
    # By exact type: a subclass may keep more data than its parent.
    return type(layer) in _WRAPPERS or type(layer) in _STATELESS or isinstance(layer, HasState)


def _read(layer: gym.Wrapper[Any, Any, Any, Any]) -> State:
    if isinstance(layer, HasState):
        return layer.get_state()
    return _WRAPPERS[type(layer)][0](layer) if type(layer) in _WRAPPERS else {}


def _write(layer: gym.Wrapper[Any, Any, Any, Any], state: State) -> None:
    if isinstance(layer, HasState):
        layer.set_state(state)
    elif type(layer) in _WRAPPERS:
        _WRAPPERS[type(layer)][1](layer, state)


def _read_monitor(monitor: Any) -> State:
    # Without its start time: the clock of a resumed run starts again.
    return {
        "rewards": np.array(monitor.rewards, np.float64),
        "needs_reset": monitor.needs_reset,
        "episode_returns": np.array(monitor.episode_returns, np.float64),
        "episode_lengths": np.array(monitor.episode_lengths, np.int64),
        "episode_times": np.array(monitor.episode_times, np.float64),
        "total_steps": monitor.total_steps,
    }


def _write_monitor(monitor: Any, state: State) -> None:
    monitor.rewards = np.asarray(state["rewards"]).tolist()
    monitor.needs_reset = bool(state["needs_reset"])
    monitor.episode_returns = np.asarray(state["episode_returns"]).tolist()
    monitor.episode_lengths = np.asarray(state["episode_lengths"]).tolist()
    monitor.episode_times = np.asarray(state["episode_times"]).tolist()
    monitor.total_steps = int(state["total_steps"])


def _read_goal(wrapper: Any) -> State:
    # Its goal space is seeded again at every reset, so the goal is its whole state.
    return {"goal": None if wrapper._goal is None else wrapper._goal.copy()}


def _write_goal(wrapper: Any, state: State) -> None:
    goal = state["goal"]
    wrapper._goal = None if goal is None else np.array(goal, dtype=wrapper.goal_space.dtype)


def _read_time_limit(wrapper: Any) -> State:
    return {"elapsed_steps": wrapper._elapsed_steps}


def _write_time_limit(wrapper: Any, state: State) -> None:
    wrapper._elapsed_steps = state["elapsed_steps"]


def _mark_reset(wrapper: Any, state: State) -> None:
    wrapper._has_reset = True


def _mark_checked(wrapper: Any, state: State) -> None:
    # Its checks compare a step with the preceding reset, which a restored environment lacks.
    wrapper.checked_reset = wrapper.checked_step = wrapper.checked_data_reuse = True


def _nothing(wrapper: Any) -> State:
    return {}


_WRAPPERS: dict[type, tuple[Callable[[Any], State], Callable[[Any, State], None]]] = {
    Monitor: (_read_monitor, _write_monitor),
    wrappers.TimeLimit: (_read_time_limit, _write_time_limit),
    wrappers.OrderEnforcing: (_nothing, _mark_reset),
    wrappers.PassiveEnvChecker: (_nothing, _mark_checked),
    GoalWrapper: (_read_goal, _write_goal),
}
_STATELESS = {
    ActionRepeat,
    Stateful,
    SimpleSpaces,
    wrappers.ClipAction,
    wrappers.DtypeObservation,
    wrappers.FilterObservation,
    wrappers.FlattenObservation,
    wrappers.RescaleAction,
    wrappers.RescaleObservation,
}
