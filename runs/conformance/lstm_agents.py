"""Pytest plugin: sb3-contrib's `RecurrentPPO` means recurrent SAC, and recurrent TD3.

Every test runs with both. Their actions are continuous: discrete ones are the sign of a number.
PPO's own options are dropped, those of its LSTM become options of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
from gymnasium import spaces
from recording import Recorder
from sb3_agents import note_construction
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.agents.sac import SAC
from rlkit.agents.td3 import TD3

_AGENTS = {"SAC": SAC, "TD3": TD3}
_OF_PPO = ("n_steps", "n_epochs", "clip_range_vf", "gae_lambda", "sde_sample_freq")
_chosen: list[str] = []


class SignAction(gym.ActionWrapper[Any, Any, Any]):
    """Two discrete actions as the sign of a number."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def action(self, action: Any) -> int:
        """1 for numbers above 0."""
        return int(action[0] > 0)


def pytest_configure(config: pytest.Config) -> None:
    """Puts the agents in place, before a test module imports RecurrentPPO."""
    recorder = Recorder()
    config.pluginmanager.register(recorder)
    sb3_contrib.RecurrentPPO = _recurrent  # type: ignore[misc, assignment]
    note_construction(recorder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every test with each agent."""
    metafunc.parametrize("agent", list(_AGENTS), indirect=True)


@pytest.fixture(autouse=True)
def agent(request: pytest.FixtureRequest) -> Iterator[str]:
    """The agent that stands in for RecurrentPPO."""
    _chosen.append(request.param)
    yield request.param
    _chosen.pop()


def _recurrent(policy: str, env: Any, **options: Any) -> Any:
    env = gym.make(env) if isinstance(env, str) else env
    if isinstance(env, DummyVecEnv) and isinstance(env.action_space, spaces.Discrete):
        env.envs = [SignAction(one) for one in env.envs]  # the tests go on using this object
        env.action_space = env.envs[0].action_space
    elif isinstance(env.action_space, spaces.Discrete):
        env = SignAction(env)
    options = {name: value for name, value in options.items() if name not in _OF_PPO}
    policy_kwargs = dict(options.pop("policy_kwargs", {}))
    encoder: dict[str, Any] = {"name": "lstm", "hidden": policy_kwargs.pop("lstm_hidden_size", 32)}
    encoder["layers"] = policy_kwargs.pop("n_lstm_layers", 1)
    encoder |= policy_kwargs.pop("lstm_kwargs", {})
    if policy_kwargs.pop("shared_lstm", False):
        options["encoder_sharing"] = "detached"
    policy_kwargs.pop("enable_critic_lstm", None)
    return _AGENTS[_chosen[-1]](
        policy.replace("Lstm", ""),
        env,
        encoder=encoder,
        policy_kwargs=policy_kwargs,
        learning_starts=16,
        **options,
    )
