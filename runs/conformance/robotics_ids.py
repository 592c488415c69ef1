"""Pytest plugin: Gymnasium-Robotics' tests run on its goal environments in this suite's wrapper."""

from __future__ import annotations

import sys
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from recording import Recorder

from rlkit.envs.make import find_spec, make, prefer_egl


def pytest_configure(config: pytest.Config) -> None:
    """Replaces the list of ids, before a test module imports it."""
    prefer_egl()
    config.pluginmanager.register(Recorder(all_touch=True))
    make("FetchReach-v4").close()  # registers the ids
    specs = [find_spec(name) for name in gym.registry]
    specs = [spec for spec in specs if spec.entry_point == "rlkit.envs.robotics:load"]
    listed = types.ModuleType("tests.utils")
    listed.__dict__.update(
        all_testing_env_specs=[spec for spec in specs if _is_chosen(spec)],
        assert_equals=np.testing.assert_equal,
    )
    sys.modules["tests.utils"] = listed


def _is_chosen(spec: Any) -> bool:
    versions = [
        other.version or 0
        for other in gym.registry.values()
        if (other.namespace, other.name) == (spec.namespace, spec.name)
    ]
    own, dense = spec.id.startswith("rlkit/"), "Dense" in spec.id  # the same with another reward
    return not own and not dense and spec.version == max(versions)
