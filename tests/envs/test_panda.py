"""The goal rule and seeds of panda-gym's tasks; parts run without the package."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlkit.envs.make import find_spec, make
from rlkit.envs.panda import PandaTask
from rlkit.goals import DistanceRule, goal_rule

BOX = spaces.Box(-10.0, 10.0, (3,), np.float32)


class Drawn(gym.Env):
    """As panda-gym's tasks do, draws its goal from a generator that each reset seeds anew."""

    observation_space = spaces.Dict(
        dict.fromkeys(("observation", "achieved_goal", "desired_goal"), BOX)
    )
    action_space = BOX

    def __init__(self, reward_type="sparse"):
        self.task = SimpleNamespace(reward_type=reward_type, distance_threshold=0.05)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        goal = np.random.default_rng(seed).uniform(-1, 1, 3).astype(np.float32)
        return {"observation": goal, "achieved_goal": goal, "desired_goal": goal}, {}


def goals(env, seed):
    """Goals of three episodes, of which the first is seeded."""
    return [env.reset(seed=one)[0]["desired_goal"] for one in (seed, None, None)]


def test_seeds_of_all_episodes_follow_from_the_first():
    one, two, three = (goals(PandaTask(Drawn()), seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, two)
    assert len({float(goal[0]) for goal in (*one, *three)}) == 6
    np.testing.assert_array_equal(one[0], Drawn().reset(seed=4)[0]["desired_goal"])


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
def test_the_rule_is_that_of_the_task(reward_type):
    rule = goal_rule(PandaTask(Drawn(reward_type)))
    assert rule == DistanceRule(0.05, sparse=reward_type == "sparse", terminates=True)


def test_only_tasks_of_positions_get_a_rule():
    for name, found in (("Push", ["PandaTask"]), ("Flip", [])):
        gym.register(f"Panda{name}Test-v0", f"panda_gym.envs:Panda{name}Env", max_episode_steps=5)
        spec = find_spec(f"Panda{name}Test-v0")
        assert [wrapper.name for wrapper in spec.additional_wrappers] == found
        assert gym.spec(f"Panda{name}Test-v0").additional_wrappers == ()
        del gym.registry[f"Panda{name}Test-v0"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Reach", "Push", "PickAndPlaceDense", "Stack"])
def test_the_rule_equals_what_the_package_gives(task):
    pytest.importorskip("panda_gym", reason="panda-gym is not installed")
    env = make(f"panda_gym:Panda{task}-v3")
    rule = goal_rule(env)
    for seed in range(3):
        env.reset(seed=seed)
        done = False
        while not done:
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            pair = observation["achieved_goal"][None], observation["desired_goal"][None]
            assert reward == pytest.approx(float(rule.reward(*pair)[0]), abs=1e-6)
            assert terminated == bool(rule.terminated(*pair)[0]) == info["is_success"]
            done = terminated or truncated
    env.close()
