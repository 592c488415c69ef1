import dataclasses
import os
import warnings

import gymnasium as gym
import pytest

from rlkit.envs.make import make
from rlkit.experiment.env_check import inspect_env
from rlkit.experiment.recipe import Recipe


def make_dying(env_id, **options):
    return Dying(make(env_id, **options))


class Dying(gym.Wrapper):
    def step(self, action):
        os._exit(3)  # as a simulator that crashes


class Deaf(gym.Wrapper):
    """Ends every episode with an observation that is not finite."""

    def step(self, action):
        observation, *rest = self.env.step(action)
        return observation * float("nan"), *rest


def make_deaf(env_id, **options):
    return Deaf(make(env_id, **options))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"does not take env_options \{'colour': 1\}"):
        inspect_env(Recipe("Pendulum-v1", env_options={"colour": 1}), make, check=False)


def test_a_failing_close_stops_nothing():
    class Stuck(gym.Wrapper):
        def close(self):
            raise RuntimeError("no window")

    def make_stuck(env_id, **options):
        return Stuck(make(env_id, **options))

    inspect_env(Recipe("CartPole-v1"), make_stuck, check=False)
    with pytest.warns(UserWarning, match=r"\[close\] Stuck.close .* RuntimeError: no window"):
        inspect_env(Recipe("CartPole-v1"), make_stuck, check=True)


def make_costly(env_id, **options):
    return gym.wrappers.TransformReward(make(env_id, **options), lambda reward: reward - 0.1)


def test_further_terms_that_are_announced_are_no_finding():
    recipe = Recipe("rlkit/PointMaze-Open-v0")
    with pytest.warns(UserWarning, match="agent_options.replay.further_terms=true"):
        inspect_env(recipe, make_costly, check=True)
    options = {"replay": {"further_terms": True}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inspect_env(dataclasses.replace(recipe, agent_options=options), make_costly, check=True)
    assert not caught


@pytest.mark.slow
def test_with_processes_the_check_has_one_that_may_die():
    recipe = Recipe("Pendulum-v1", subprocess=True)
    with pytest.warns(UserWarning, match=r"\[crash\] the process of the check ended with code 3"):
        inspect_env(recipe, make_dying, check=True)
    with pytest.raises(ValueError, match=r"\[finite\] Deaf.step \(tests/experiment/test_env_check"):
        inspect_env(recipe, make_deaf, check=True)
