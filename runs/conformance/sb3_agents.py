"""Pytest plugin: Stable-Baselines3's names `SAC`, `TD3` and `DQN` mean this suite's agents."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import stable_baselines3
from recording import Recorder

from rlkit.agents.dqn import DQN
from rlkit.agents.sac import SAC
from rlkit.agents.td3 import TD3
from rlkit.offpolicy.algorithm import Algorithm


def pytest_configure(config: pytest.Config) -> None:
    """Puts the agents in place, before a test module imports them."""
    recorder = Recorder()
    config.pluginmanager.register(recorder)
    for agent in (SAC, TD3, DQN):
        setattr(stable_baselines3, agent.__name__, agent)
    note_construction(recorder)


def note_construction(recorder: Recorder) -> None:
    """Lets the recorder know of every agent that a test builds or loads."""
    init = Algorithm.__init__

    @functools.wraps(init)
    def noted(self: Algorithm, *args: Any, **options: Any) -> None:
        recorder.touch()
        init(self, *args, **options)

    Algorithm.__init__ = noted  # type: ignore[method-assign]
