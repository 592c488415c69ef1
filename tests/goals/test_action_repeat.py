"""Actions held for several steps: rewards, ends of episodes, infos, state."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given
from hypothesis import strategies as st
from small_envs import Clock

from rlkit.envs.make import make
from rlkit.envs.wrappers.action_repeat import ActionRepeat
from rlkit.goals import STEPS_TAKEN, goal_rule
from rlkit.goals.check import check_env
from rlkit.vec.env_state import env_state, set_env_state


def by_hand(env, action, repeat, has_goals):
    """What one step of the wrapper must give, and how many steps it takes."""
    rewards = []
    for _ in range(repeat):
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            break
    total = rewards[-1] if has_goals else sum(rewards)
    return observation, total, terminated, truncated, len(rewards)


@given(repeat=st.integers(1, 7), length=st.integers(1, 12))
def test_without_goals_rewards_add_up_and_episodes_keep_their_length(repeat, length):
    env, plain = ActionRepeat(Clock(length=length), repeat), Clock(length=length)
    env.reset()
    plain.reset()
    total, done = 0, False
    while not done:
        observation, reward, _, done, info = env.step(1)
        expected = by_hand(plain, 1, repeat, has_goals=False)
        np.testing.assert_array_equal(observation, expected[0])
        assert (reward, done, info[STEPS_TAKEN]) == (expected[1], expected[3], expected[4])
        total += info[STEPS_TAKEN]
    assert total == length


@pytest.mark.parametrize("repeat", [2, 3])
@pytest.mark.parametrize("env_id", ["rlkit/PointMaze-U-v0", "rlkit/PlanarPush-Dense-v0"])
def test_with_goals_the_reward_is_that_of_the_last_step_and_of_the_rule(env_id, repeat):
    env, plain = ActionRepeat(make(env_id), repeat), make(env_id)
    rule = goal_rule(env)
    env.reset(seed=3)
    plain.reset(seed=3)
    env.action_space.seed(0)
    done = False
    while not done:
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        expected = by_hand(plain, action, repeat, has_goals=True)
        np.testing.assert_array_equal(observation["observation"], expected[0]["observation"])
        assert (reward, terminated, truncated, info[STEPS_TAKEN]) == expected[1:]
        goals = observation["achieved_goal"][None], observation["desired_goal"][None]
        assert reward == rule.reward(*goals)[0]
        done = terminated or truncated


def test_a_termination_ends_the_step_at_once():
    env = ActionRepeat(make("CartPole-v1"), 5)
    env.reset(seed=0)
    steps, terminated = 0, False
    while not terminated:
        _, reward, terminated, _, info = env.step(0)
        assert reward == info[STEPS_TAKEN]  # CartPole's reward is 1 a step
        steps += info[STEPS_TAKEN]
    plain = make("CartPole-v1")
    plain.reset(seed=0)
    assert steps == next(i for i in range(1, 100) if plain.step(0)[2])


def test_repeats_multiply():
    env = ActionRepeat(ActionRepeat(Clock(length=100), 2), 3)
    assert env.action_repeat == 6
    env.reset()
    assert env.step(1)[4][STEPS_TAKEN] == 6
    assert env.unwrapped.clock == 7


@pytest.mark.parametrize("repeat", [0, -1, 1.5, True, "2"])
def test_a_repeat_that_is_no_positive_number_is_refused(repeat):
    with pytest.raises(ValueError, match=r"action_repeat = .* whole number of at least 1"):
        ActionRepeat(Clock(), repeat)


def test_the_state_passes_through():
    env = ActionRepeat(TimeLimit(Clock(), 9), 2)
    env.reset()
    env.step(1)
    state = env_state(env)
    assert state is not None
    outcomes = [env.step(1) for _ in range(4)]
    set_env_state(env, state)
    again = [env.step(1) for _ in range(4)]
    assert [o[1:] for o in outcomes] == [o[1:] for o in again]
    assert outcomes[-1][3]


def test_the_wrapper_is_recorded_and_built_again_from_its_spec():
    env = ActionRepeat(gym.make("CartPole-v1"), 4)
    assert gym.make(env.spec).get_wrapper_attr("action_repeat") == 4


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["rlkit/PointMaze-U-v0", "CartPole-v1"])
def test_the_check_finds_nothing_in_held_actions(env_id):
    findings = check_env(lambda: ActionRepeat(make(env_id), 3), episodes=2, steps=100)
    assert [one for one in findings if one.level != "note"] == []
