"""Many environments behind Stable-Baselines3's `VecEnv`, native vector environments included."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from rlkit.goals import (
    ComputedRule,
    GoalEnv,
    GoalRule,
    is_goal_space,
    make_repeating,
    simplify,
)
from rlkit.goals.failure import EnvironmentFailed
from rlkit.vec.checked_vec_env import CheckedVecEnv
from rlkit.vec.env_state import HasState, State, Stateful
from rlkit.vec.trail import own_frame
from rlkit.vec.workers import ResilientVecEnv, row_of

MakeEnv = Callable[..., gym.Env[Any, Any]]
"""Builds an environment from its id and keyword arguments, as `rlkit.envs.make.make` does."""

Observation = NDArray[Any] | dict[str, NDArray[Any]]
_FINAL = ("final_obs", "final_info")


class GymVecEnv(VecEnv):
    """A Gymnasium vector environment as a Stable-Baselines3 `VecEnv`.

    It equals a `DummyVecEnv` of `Monitor`ed single environments step for step, `episode`,
    `terminal_observation`, `TimeLimit.truncated` and the environment's own infos included.

    Args:
        env: The vector environment, restarting episodes in the step that ends them.

    Attributes:
        env: The vector environment.

    Raises:
        ValueError: If the autoreset mode is another one.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"{env} has autoreset_mode {mode}, but Stable-Baselines3 needs SAME_STEP: build it "
                f'with gymnasium.make_vec(id, num_envs, vector_kwargs={{"autoreset_mode": '
                f"gymnasium.vector.AutoresetMode.SAME_STEP}}), or with autoreset_mode=... directly "
                f"if it is a vector environment of its own"
            )
        self.env: Any = env  # Gymnasium annotates its methods too narrowly
        self._goals = _goals_of(env)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions: NDArray[Any] = np.empty(0)
        self._returns = np.zeros(env.num_envs, np.float64)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._started = time.time()

    def reset(self) -> Any:
        """Starts all episodes, with the seeds and options set before."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("a vector environment needs the same options for all environments")
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observation, infos = self.env.reset(seed=seeds, options=options or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(infos, self.num_envs)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps the actions `(N, *action)` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Steps all environments: observations, rewards `(N,)`, dones `(N,)` and infos."""
        try:
            observation, reward, terminated, truncated, infos = self.env.step(self._actions)
        except Exception as error:
            place = own_frame(error, None)
            raise EnvironmentFailed(
                f"the environments raised {type(error).__name__}: {error} ({place})"
            ) from error
        self._returns += reward
        self._lengths += 1
        rows = _rows(infos, self.num_envs)
        for row in rows:
            row["TimeLimit.truncated"] = False
        dones = terminated | truncated
        ended = np.flatnonzero(dones).tolist()
        if ended:
            # The batched info of an ended row may be that of the restart already.
            final = _rows(infos["final_info"], self.num_envs) if "final_info" in infos else rows
            for i in ended:
                rows[i] = final[i]
                rows[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
                rows[i]["terminal_observation"] = row_of(infos["final_obs"], i)
                rows[i]["episode"] = self._finish(i)
                self.reset_infos[i] = {}
        return observation, np.asarray(reward, np.float32), dones, rows

    def close(self) -> None:
        """Closes the vector environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """One picture per environment; None without `render_mode="rgb_array"`."""
        pictures = self.env.render()
        return list(pictures) if pictures is not None else [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the chosen environments; a native vector environment has one for all."""
        rows = self._get_indices(indices)
        if hasattr(self.env, "get_attr"):  # a vector environment made of single ones
            values = self.env.get_attr(attr_name)
            return [values[i] for i in rows]
        value = self._shared(attr_name)
        return [value for _ in rows]

    def has_attr(self, attr_name: str) -> bool:
        """Whether all environments have an attribute."""
        if hasattr(self.env, "call"):
            # Asking for one that is missing would end the workers of an AsyncVectorEnv.
            return all(self.env.call("has_wrapper_attr", attr_name))
        return super().has_attr(attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of all environments.

        Raises:
            ValueError: If only some environments are chosen.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name!r} can only be set for all environments at once")
        if hasattr(self.env, "set_attr"):
            self.env.set_attr(attr_name, [value] * self.num_envs)
        else:
            setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the chosen environments.

        A native vector environment is called once, and the result returned for each of them;
        `compute_reward`, `compute_terminated` and `compute_truncated` come from its goal rule.
        """
        rows = self._get_indices(indices)
        if hasattr(self.env, "call"):
            results = self.env.call(method_name, *method_args, **method_kwargs)
            return [results[i] for i in rows]
        result = self._shared(method_name)(*method_args, **method_kwargs)
        return [result for _ in rows]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """True for `Monitor`, whose work this class does; False for other wrappers."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]

    def get_state(self) -> State | None:
        """Environments and running episodes, or None where the environments have no state."""
        if not isinstance(self.env, HasState):
            return None
        return {
            "envs": self.env.get_state(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
        }

    def set_state(self, state: State) -> None:
        """Continues from `get_state()`, bit for bit.

        Raises:
            ValueError: If the vector environment cannot restore a state.
        """
        if not isinstance(self.env, HasState):
            raise ValueError(f"{self.env} cannot restore a state: it has no set_state(state)")
        self.env.set_state(state["envs"])
        self._returns = np.array(state["returns"], np.float64)
        self._lengths = np.array(state["lengths"], np.int64)

    def _finish(self, i: int) -> dict[str, Any]:
        episode = {
            "r": round(float(self._returns[i]), 6),
            "l": int(self._lengths[i]),
            "t": round(time.time() - self._started, 6),
        }
        self._returns[i] = 0.0
        self._lengths[i] = 0
        return episode

    def _shared(self, name: str) -> Any:
        owner: Any = self.env.unwrapped
        if not hasattr(owner, name) and self._goals is not None:
            owner = self._goals
        return getattr(owner, name)


def make_vec_env(
    make: MakeEnv,
    env_id: str,
    num_envs: int,
    seed: int | None = None,
    *,
    action_repeat: int = 1,
    subprocess: bool = False,
    worker_timeout_s: float = 60.0,
    **env_kwargs: Any,
) -> VecEnv:
    """Many monitored environments of one id, whose state can be saved.

    Args:
        make: Builds one environment from its id, such as `rlkit.envs.make.make`; importable
            when `subprocess` is set.
        env_id: The id. An environment with a native vector form uses it, unless actions are held:
            rows whose episodes end while the others hold theirs would need single environments.
        num_envs: How many, N.
        seed: Environment i is seeded with `seed + i` at the first reset; None for entropy.
        action_repeat: Steps for which each action is held; see `rlkit.goals.ActionRepeat`.
        subprocess: Whether each environment gets a process, which is replaced when it crashes or
            hangs; native vector forms need none.
        worker_timeout_s: Seconds that such a process may take for one step.
        env_kwargs: Arguments of the environment.

    Raises:
        ValueError: If `num_envs` is not positive or the id is unknown.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")
    venv: VecEnv
    vector = _native(env_id, num_envs, env_kwargs) if action_repeat == 1 else None
    if vector is not None:
        venv = GymVecEnv(vector)
    else:
        build = functools.partial(_monitored, make, action_repeat, env_id, env_kwargs)
        builds: list[Callable[[], gym.Env[Any, Any]]] = [build] * num_envs
        venv = ResilientVecEnv(builds, worker_timeout_s) if subprocess else CheckedVecEnv(builds)
    if seed is not None:
        venv.seed(seed)
    return venv


def vec_goal_rule(venv: VecEnv) -> GoalRule:
    """The goal rule of a vector environment: its own, or one that calls its first environment.

    Raises:
        ValueError: If it has neither `rule` nor `compute_reward`.
    """
    if venv.has_attr("rule"):
        rule: GoalRule = venv.get_attr("rule", indices=[0])[0]
        return rule
    if not venv.has_attr("compute_reward"):
        raise ValueError(
            f"{type(venv).__name__} has goal keys but neither `rule` nor "
            f"`compute_reward(achieved, desired, info)`; hindsight needs one of them"
        )

    def call(method: str, achieved: Any, desired: Any, info: Any) -> Any:
        return venv.env_method(method, achieved, desired, info, indices=[0])[0]

    ends = venv.has_attr("compute_terminated")
    return ComputedRule(
        functools.partial(call, "compute_reward"),
        functools.partial(call, "compute_terminated") if ends else None,
    )


def goal_names(venv: VecEnv) -> tuple[str, ...]:
    """Names of the goal's dimensions, from `metadata["goal_names"]` of the environment."""
    if not venv.has_attr("metadata"):
        return ()
    return tuple(venv.get_attr("metadata", indices=[0])[0].get("goal_names", ()))


def action_repeat_of(venv: VecEnv) -> int:
    """Steps for which environments hold an action; 1 where they do not say."""
    if not venv.has_attr("action_repeat"):
        return 1
    found = venv.get_attr("action_repeat", indices=[0])[0]
    return found if isinstance(found, int) and found > 1 else 1


def _monitored(
    make: MakeEnv, action_repeat: int, env_id: str, env_kwargs: dict[str, Any]
) -> Stateful:
    return Stateful(Monitor(simplify(make_repeating(make, action_repeat, env_id, **env_kwargs))))


def _native(
    env_id: str, num_envs: int, env_kwargs: dict[str, Any]
) -> VectorEnv[Any, Any, Any] | None:
    """The native vector form of an environment, if it has one that restarts in the same step."""
    try:
        if gym.spec(env_id).vector_entry_point is None:
            return None
    except (gym.error.Error, ImportError):  # `make` knows more ids, or explains the error
        return None
    vector = gym.make_vec(env_id, num_envs, "vector_entry_point", **env_kwargs)
    if vector.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
        return vector
    vector.close()  # as for Gymnasium's CartPole; single environments are built instead
    return None


def _goals_of(env: VectorEnv[Any, Any, Any]) -> GoalEnv[Any] | None:
    """Gives a native vector environment the `compute_*` methods of a single one."""
    rule = getattr(env.unwrapped, "rule", None)
    if rule is None or not is_goal_space(env.single_observation_space):
        return None
    assert isinstance(env.single_observation_space, spaces.Dict)
    goals: GoalEnv[Any] = GoalEnv()
    goals.rule = rule
    goals.observation_space = env.single_observation_space
    return goals


def _rows(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's batched infos `{key: (N, ...), _key: mask (N,)}` as one dict per environment."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in infos.items():
        if key.startswith("_") or key in _FINAL:
            continue
        if isinstance(values, dict):
            values = _rows(values, num_envs)
        elif isinstance(values, np.ndarray) and values.ndim == 1:
            values = values.tolist()
        present = infos.get(f"_{key}")
        if present is None or present.all():
            for row, value in zip(rows, values, strict=True):
                row[key] = value
        else:
            for i in np.flatnonzero(present).tolist():
                rows[i][key] = values[i]
    return rows
