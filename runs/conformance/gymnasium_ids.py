"""Pytest plugin: Gymnasium's tests of environments run on this suite's ids.

The lists of ids that the tests are parametrised with hold this suite's. Tests of vector
environments that name `CartPole-v1` or `BipedalWalker-v3` run once per id in its place, except
those with dense rewards, which differ in nothing else, and one that renders with MuJoCo, which
does not survive the fork of `AsyncVectorEnv`. Gymnasium's wrappers flatten the observations,
because the tests expect arrays. Where an id has a native vector environment, that one takes the
part of `SyncVectorEnv`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import gymnasium.vector
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from gymnasium.wrappers import FlattenObservation
from recording import Recorder

from rlkit.envs.make import make, prefer_egl

_STAND_INS = ("CartPole-v1", "BipedalWalker-v3")
_NAMES_ONE = re.compile("|".join((*_STAND_INS, "example_env_list")))
_RENDERS_WITH_MUJOCO = "rlkit/FetchReach-Pixels-v0"
_Sync = gymnasium.vector.SyncVectorEnv
_make, _make_vec = gym.make, gym.make_vec
_recorder = Recorder()
_current: list[str] = []


class Flattened(gymnasium.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """`FlattenObservation` for every autoreset mode; Gymnasium's refuses `SAME_STEP`."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._single = env.single_observation_space
        self.single_observation_space = spaces.flatten_space(self._single)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Flat observations."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return self._flat(observation), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Flat observations, final ones included."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        last = infos.get("final_obs", ())
        for i, one in enumerate(last):
            last[i] = None if one is None else spaces.flatten(self._single, one)
        return self._flat(observation), reward, terminated, truncated, infos

    def _flat(self, observation: Any) -> Any:
        rows = iterate(self.env.observation_space, observation)
        return np.stack([spaces.flatten(self._single, row) for row in rows])


def ids() -> list[str]:
    """This suite's ids."""
    return sorted(name for name in gym.registry if name.startswith("rlkit/"))


def pytest_configure(config: pytest.Config) -> None:
    """Replaces the lists of ids and what makes environments, before a test module imports them."""
    prefer_egl()
    config.pluginmanager.register(_recorder)
    specs = [gym.spec(name) for name in ids()]
    listed = types.ModuleType("tests.envs.utils")
    listed.__dict__.update(
        all_testing_env_specs=specs,
        __getattr__=_initialised,
        mujoco_testing_env_specs=[],
        gym_testing_env_specs=[],
    )
    sys.modules["tests.envs.utils"] = listed
    gym.make, gym.make_vec = _noted_make, _noted_make_vec
    gymnasium.vector.SyncVectorEnv = _vector  # type: ignore[misc, assignment]


def _initialised(name: str) -> list[gym.Env[Any, Any]]:
    """Made when a test module imports them: a process that has rendered cannot be forked safely."""
    if name != "all_testing_initialised_envs":
        raise AttributeError(name)
    return [make(one, disable_env_checker=True) for one in ids()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeats a test that names one of Gymnasium's ids, once per id of this suite."""
    source = inspect.getsource(metafunc.function)
    if os.sep + "vector" + os.sep in metafunc.module.__file__ and _NAMES_ONE.search(source):
        chosen = [one for one in ids() if "Dense" not in one and one != _RENDERS_WITH_MUJOCO]
        metafunc.parametrize("own_id", chosen, indirect=True)


@pytest.fixture(autouse=True)
def own_id(request: pytest.FixtureRequest) -> Iterator[None]:
    """The id that stands in for Gymnasium's, in tests that name one."""
    _current.extend([request.param] if hasattr(request, "param") else [])
    yield
    _current.clear()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test with an id among its arguments uses this suite's code."""
    if any(name in item.name for name in ids()):
        _recorder.touch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Flattens the observations that a test compares by `==`."""
    arguments = getattr(item, "funcargs", {})
    if "test_action_dim_check" not in item.nodeid or "env" not in arguments:
        return (yield)
    env = arguments["env"]
    arguments["env"] = FlattenObservation(env)
    _current.append(env.spec.id)
    result = yield
    _current.pop()
    return result


def _noted_make(env_id: Any, **options: Any) -> gym.Env[Any, Any]:
    if _current and env_id in (*_STAND_INS, _current[-1]):
        return FlattenObservation(_make(_current[-1], **options))
    return _make(env_id, **options)


def _noted_make_vec(env_id: Any, num_envs: int = 1, **options: Any) -> Any:
    if env_id in _STAND_INS and _current:
        env_id, options = _current[-1], options | {"wrappers": [FlattenObservation]}
    return _make_vec(env_id, num_envs, **options)


def _vector(env_fns: Sequence[Callable[[], gym.Env[Any, Any]]], **options: Any) -> Any:
    """`SyncVectorEnv`, or the native one where these environments are of one id that has it."""
    made = [build() for build in env_fns]
    names = {one.spec.id if one.spec else "" for one in made}
    first = made[0]
    native = len(names) == 1 and gym.registry.get(names.pop())
    if not native or not native.id.startswith("rlkit/") or native.vector_entry_point is None:
        envs = iter(made)
        return _Sync([lambda: next(envs)] * len(made), **options)
    for one in made:
        one.close()
    options.setdefault("autoreset_mode", "NextStep")
    if first.render_mode is not None:
        options["render_mode"] = first.render_mode
    vector = _make_vec(native.id, len(made), **options)
    flat = isinstance(first.observation_space, spaces.Box)
    return Flattened(vector) if flat else vector
