import gymnasium as gym
import numpy as np
import pytest

import rlkit.envs  # noqa: F401
from rlkit.envs.bit_flip import BitFlip, BitFlipSimulation, HammingRule


def test_an_action_flips_its_bit_and_no_other():
    env = BitFlip(bits=6)
    before = env.reset(seed=0)[0]
    after = env.step(4)[0]
    np.testing.assert_array_equal(before["observation"] ^ after["observation"], np.eye(6)[4])
    np.testing.assert_array_equal(after["observation"], after["achieved_goal"])
    np.testing.assert_array_equal(before["desired_goal"], after["desired_goal"])


@pytest.mark.parametrize("bits", [1, 5, 50])
def test_flipping_the_wrong_bits_reaches_the_goal(bits):
    env = gym.make("rlkit/BitFlip-v0", bits=bits)
    observation, _ = env.reset(seed=3)
    wrong = np.flatnonzero(observation["observation"] != observation["desired_goal"])
    assert len(wrong) >= 1
    for i in wrong[:-1]:
        assert env.step(i)[1:3] == (-1.0, False)
    _, reward, terminated, _, info = env.step(wrong[-1])
    assert (reward, terminated, info["is_success"]) == (0.0, True, True)


def lengths(env, action):
    for step in range(1, 200):
        *_, terminated, truncated, _ = env.step(action)
        if np.any(terminated) or np.any(truncated):
            return step
    return None


@pytest.mark.parametrize("bits", [10, 50])
@pytest.mark.parametrize(("limit", "shortest"), [(None, 200), (4, 4), (80, 80)])
def test_the_limit_is_the_number_of_bits(bits, limit, shortest):
    arguments = {"bits": bits, "terminates": False}
    if limit is not None:
        arguments["max_episode_steps"] = limit
    single = gym.make("rlkit/BitFlip-v0", **arguments)
    vector = gym.make_vec("rlkit/BitFlip-v0", num_envs=1, **arguments)
    single.reset(seed=0)
    vector.reset(seed=0)
    assert lengths(single, 0) == min(bits, shortest)
    assert lengths(vector, np.array([0])) == min(bits, shortest)


def test_success_may_leave_the_episode_running():
    env = BitFlip(bits=1, terminates=False)
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(0)
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_dense_reward_counts_wrong_bits():
    env = gym.make("rlkit/BitFlip-Dense-v0", bits=8)
    observation, _ = env.reset(seed=1)
    wrong = (observation["observation"] != observation["desired_goal"]).sum()
    assert env.step(0)[1] in (-(wrong - 1.0), -(wrong + 1.0))
    rule = HammingRule(bits=3)
    assert rule.reward_range == (-3.0, 0.0)
    pattern = np.array([[0, 0, 0], [1, 0, 1], [1, 1, 1]], np.int8)
    np.testing.assert_array_equal(rule.reward(pattern, pattern[[0, 0, 0]]), [0.0, -2.0, -3.0])


def test_starts_and_goals_are_spread_evenly():
    simulation = BitFlipSimulation(3, "sparse", True)
    state = simulation.initial(np.random.default_rng(0).random((28000, simulation.draws)))
    codes = [state[key] @ (1 << np.arange(3)) for key in ("pattern", "goal")]
    for code in codes:
        assert np.abs(np.bincount(code, minlength=8) / 28000 - 1 / 8).max() < 0.01
    # One pair in eight is equal by chance; then one bit of the goal is flipped.
    distance = (state["pattern"] != state["goal"]).sum(axis=1)
    np.testing.assert_allclose(np.bincount(distance) / 28000, [0, 0.5, 0.375, 0.125], atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"bits": 0}, "at least 1, got 0"), ({"reward": "shaped"}, "got 'shaped'")],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitFlip(**arguments)
