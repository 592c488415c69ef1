import gymnasium as gym
import numpy as np
import pytest

from rlkit.envs.make import make
from rlkit.envs.rendering.drawing import GOAL
from rlkit.goals import goal_rule
from rlkit.goals.check import check_env

ID = "rlkit/HiddenGoalReach-v0"


@pytest.mark.parametrize("arguments", [{}, {"visible_steps": 1, "links": 3, "reward": "dense"}])
def test_laws(arguments):
    assert [str(p) for p in check_env(lambda: make(ID, **arguments)) if p.level != "note"] == []


@pytest.mark.parametrize("visible", [1, 5, None])
def test_it_is_planar_reach_with_a_flag(visible):
    plain, hidden = make("rlkit/PlanarReach-v0"), make(ID, visible_steps=visible)
    assert gym.spec(ID).max_episode_steps == gym.spec("rlkit/PlanarReach-v0").max_episode_steps
    assert goal_rule(plain) == goal_rule(hidden)
    plain.action_space.seed(0)
    first, other = plain.reset(seed=4)[0], hidden.reset(seed=4)[0]
    flags = []
    for _ in range(50):
        flags.append(other.pop("goal_visible", np.ones(1, np.float32)))
        assert set(other) == set(first)
        for key, value in first.items():
            np.testing.assert_array_equal(other[key], value)
        action = plain.action_space.sample()
        first, *rest = plain.step(action)
        other, *others = hidden.step(action)
        assert rest == others
    assert np.ravel(flags).tolist() == [float(visible is None or t < visible) for t in range(50)]


def test_the_flag_restarts_with_each_row():
    env = gym.make_vec(ID, 3, max_episode_steps=7, autoreset_mode="SameStep")
    flags = [env.reset(seed=0)[0]["goal_visible"]]
    finals = []
    for _ in range(20):
        observation, *_, infos = env.step(env.action_space.sample())
        flags.append(observation["goal_visible"])
        if "final_obs" in infos:
            finals.append([last["goal_visible"] for last in infos["final_obs"]])
    assert np.shape(flags) == (21, 3, 1)
    assert [row[0, 0] for row in flags] == [float(t % 7 < 5) for t in range(21)]
    assert len(finals) == 2
    assert (np.array(finals) == 0).all()


@pytest.mark.slow
def test_images_have_a_border_while_the_goal_is_visible():
    env = make(ID, render_mode="rgb_array", visible_steps=2)
    env.reset(seed=0)
    framed = []
    for _ in range(4):
        edge = env.render()[0]
        framed.append(bool((edge == GOAL).all()))
        env.step(env.action_space.sample())
    assert framed == [True, True, False, False]
