"""Fetch tasks with indexed joints and sites, beside the packaged environments as the reference."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")

from gymnasium_robotics.utils.rotations import euler2mat, mat2euler
from hypothesis import given
from hypothesis import strategies as st

from rlkit.envs.fetch import INDEXED, FetchPushEnv, IndexedFetch, euler_angles
from rlkit.envs.make import make
from rlkit.envs.robotics import RoboticsEnv

TASKS = ["FetchReach", "FetchPush", "FetchPickAndPlace", "FetchSlide"]
SEEDS = {0: 11, 2: 12}  # of the reset before an episode; the other resets have none


def robot_of(env: gym.Env[Any, Any]) -> Any:
    assert isinstance(env.unwrapped, RoboticsEnv)
    return env.unwrapped.robot


def assert_near(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for key in one:
        assert one[key].dtype == two[key].dtype
        np.testing.assert_allclose(one[key], two[key], rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(("reward_type", "episodes"), [("sparse", 4), ("dense", 1)])
@pytest.mark.parametrize("packaged", INDEXED, ids=lambda kind: kind.__name__)
def test_steps_equal_those_of_the_packaged_environment(
    packaged: Any, reward_type: str, episodes: int
) -> None:
    one, two = packaged(reward_type=reward_type), INDEXED[packaged](reward_type=reward_type)
    assert one.observation_space == two.observation_space
    assert one.action_space == two.action_space
    generator = np.random.default_rng(0)
    for episode in range(episodes):
        seed = SEEDS.get(episode)
        (first, info), (ours, our_info) = one.reset(seed=seed), two.reset(seed=seed)
        assert_near(first, ours)
        assert info == our_info
        for _ in range(75):
            action = generator.uniform(-1.2, 1.2, 4).astype([np.float32, np.float64][episode % 2])
            given_action = action.copy()
            (first, *outcome), (ours, *our_outcome) = one.step(action), two.step(action)
            assert_near(first, ours)
            assert outcome == our_outcome
            np.testing.assert_array_equal(action, given_action)
            np.testing.assert_array_equal(one.data.qpos, two.data.qpos)
            np.testing.assert_array_equal(one.data.qacc_warmstart, two.data.qacc_warmstart)


@pytest.mark.parametrize("task", TASKS)
def test_make_builds_the_indexed_task(task: str) -> None:
    for env_id in (f"{task}-v4", f"{task}Dense-v4"):
        env = make(env_id)
        assert isinstance(robot_of(env), IndexedFetch)
        assert robot_of(env).reward_type == ("dense" if "Dense" in env_id else "sparse")
        assert env.spec is not None
        assert env.spec.max_episode_steps == 50


@pytest.mark.parametrize("task", TASKS)
def test_hidden_velocities_are_the_end_of_the_observation(task: str) -> None:
    full, masked = make(f"{task}-v4"), make(f"rlkit/{task}-HiddenVelocity-v0")
    assert isinstance(robot_of(masked), IndexedFetch)
    first, seen = full.reset(seed=4)[0], masked.reset(seed=4)[0]
    action = full.action_space.high
    for _ in range(8):
        kept = 5 if task == "FetchReach" else 14
        hidden = first["observation"][kept:]
        assert_near(seen, first | {"observation": first["observation"][:kept]})
        before = first["observation"]
        (first, *outcome), (seen, *ours) = full.step(action), masked.step(action)
        assert outcome == ours
        action = -action
    # Not a joint angle or a position among them: at full speed they are some millimetres a step.
    assert np.abs(hidden).max() < 0.2
    assert np.abs(first["observation"][:3] - before[:3]).max() > 1e-3


def test_observations_are_no_views_of_the_simulation() -> None:
    env = make("FetchPush-v4")
    kept, _ = env.reset(seed=0)
    copied = copy.deepcopy(kept)
    for _ in range(20):
        observation, *_ = env.step(env.action_space.high)
        assert not np.shares_memory(observation["achieved_goal"], observation["observation"])
    assert_near(kept, copied)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_are_of_the_same_class_and_go_on(duplicate: Any) -> None:
    env = make("FetchPickAndPlaceDense-v4").unwrapped
    env.reset(seed=0)
    other = duplicate(env)
    assert type(other.robot) is type(robot_of(env))
    assert other.robot.reward_type == "dense"
    assert_near(env.reset(seed=1)[0], other.reset(seed=1)[0])
    assert_near(env.step(env.action_space.high)[0], other.step(env.action_space.high)[0])


def test_a_joint_that_the_user_moves_is_observed() -> None:
    # Nothing but ids is kept between steps.
    env = FetchPushEnv()
    env.reset(seed=0)
    block = env.model.joint("object0:joint").qposadr[0]
    env.data.qpos[block] += 0.07
    moved = env.step(np.zeros(4))[0]["achieved_goal"][0]
    assert moved == pytest.approx(env.data.qpos[block], abs=1e-3)


@given(st.tuples(*[st.floats(-3.1, 3.1)] * 3))
def test_euler_angles_equal_those_of_the_package(angles: tuple[float, float, float]) -> None:
    matrix = euler2mat(np.array(angles))
    found, expected = euler_angles(matrix.ravel()), mat2euler(matrix)
    np.testing.assert_allclose(np.cos(found - expected), 1.0, atol=1e-9)


@pytest.mark.parametrize("pitch", [-np.pi / 2, np.pi / 2])
def test_euler_angles_at_a_vertical_pitch(pitch: float) -> None:
    matrix = np.array([[0, 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, 0]])
    np.testing.assert_allclose(euler_angles(matrix.ravel()), mat2euler(matrix), atol=1e-12)
    assert euler_angles(matrix.ravel())[0] == 0.0
