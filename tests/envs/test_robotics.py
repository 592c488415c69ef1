from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics", reason="the extra `robotics` is not installed")

import continue_robotics
from continue_robotics import continued

from rlkit.envs import make as construct
from rlkit.envs.make import make
from rlkit.envs.robotics import ManipulateRule, MazeRule, ReachRule, RoboticsEnv, load
from rlkit.goals import GoalRule
from rlkit.goals.check import check_env

FAMILIES = [
    "FetchReach-v4",
    "FetchPush-v4",
    "FetchPickAndPlace-v4",
    "FetchSlideDense-v4",
    "PointMaze_UMaze-v3",
    "PointMaze_UMazeDense-v3",
    "AntMaze_UMaze-v4",
    "AntMaze_UMaze-v5",
    "HandReach-v3",
    "HandManipulateBlock-v1",
    "HandManipulatePenDense-v1",
    "HandManipulateEgg_ContinuousTouchSensors-v1",
]
EXACT = ["FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4", "PointMaze_UMaze-v3"]
RULES: list[tuple[GoalRule, int]] = [
    (ReachRule(0.5), 3),
    (ReachRule(0.5, sparse=False), 15),
    (MazeRule(), 2),
    (MazeRule(sparse=False, terminates=True), 2),
    (ManipulateRule(0.3, 1.0), 7),
    (ManipulateRule(0.3, 1.0, sparse=False), 7),
    (ManipulateRule(0.3, 1.0, use_position=False, ignore_z=True), 7),
    (ManipulateRule(0.3, 1.0, use_rotation=False, sparse=False), 7),
]


def robot_of(env: gym.Env[Any, Any]) -> RoboticsEnv:
    assert isinstance(env.unwrapped, RoboticsEnv)
    return env.unwrapped


def trace(env: gym.Env[Any, Any], steps: int, seed: int) -> list[Any]:
    """All that an environment returns, with resets every 60 steps."""
    env.action_space.seed(seed)
    observed: list[Any] = []
    for step in range(steps):
        observation, *outcome = env.step(env.action_space.sample())
        observed.append([observation[key] for key in sorted(observation)] + outcome[:3])
        if step % 60 == 59 or outcome[1] or outcome[2]:
            observation, _ = env.reset()
            observed.append([observation[key] for key in sorted(observation)])
    return observed


def assert_same(one: list[Any], two: list[Any]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_rule_equals_what_step_returned(env_id: str) -> None:
    env = make(env_id, max_episode_steps=40)
    rule = pickle.loads(pickle.dumps(robot_of(env).rule))
    for seed in range(2):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        rows = [env.step(env.action_space.sample()) for _ in range(40)]
        achieved = np.stack([row[0]["achieved_goal"] for row in rows])
        desired = np.stack([row[0]["desired_goal"] for row in rows])
        np.testing.assert_array_equal(rule.reward(achieved, desired), [row[1] for row in rows])
        np.testing.assert_array_equal(rule.terminated(achieved, desired), [row[2] for row in rows])
        success = [row[4]["is_success"] for row in rows]
        np.testing.assert_array_equal(rule.success(achieved, desired), success)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_rule_equals_the_packaged_reward_of_near_and_far_goals(env_id: str) -> None:
    env = robot_of(make(env_id))
    desired = env.reset(seed=0)[0]["desired_goal"]
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        achieved = desired + scale * rng.normal(size=desired.shape)
        packaged = env.robot.compute_reward(achieved, desired, {})
        np.testing.assert_allclose(env.compute_reward(achieved, desired), packaged, atol=1e-12)


@pytest.mark.parametrize(("rule", "width"), RULES, ids=lambda value: repr(value)[:60])
def test_a_batch_equals_a_loop(rule: GoalRule, width: int) -> None:
    rng = np.random.default_rng(3)
    desired = rng.normal(size=(40, width))
    achieved = desired + rng.choice([0.0, 0.05, 0.5], (40, 1)) * rng.normal(size=(40, width))
    low, high = rule.reward_range
    for function in (rule.reward, rule.success, rule.terminated):
        batch = function(achieved, desired)
        loop = [function(achieved[i : i + 1], desired[i : i + 1])[0] for i in range(40)]
        assert batch.shape == (40,)
        np.testing.assert_allclose(batch.astype(float), np.array(loop, float), rtol=1e-12)
    reward = rule.reward(achieved, desired)
    assert ((low <= reward) & (reward <= high)).all()
    assert rule.success(achieved, desired).any()
    assert not rule.success(achieved, desired).all()


def test_an_episodic_maze_terminates_at_its_goal() -> None:
    env = make("PointMaze_UMaze-v3", continuing_task=False)
    goal = env.reset(seed=0)[0]["desired_goal"]
    robot = robot_of(env)
    assert robot.rule == MazeRule(terminates=True)
    state = robot.get_state()
    near = np.concatenate([goal, np.zeros(2)])
    robot.robot.point_env.set_state(near[:2], near[2:])
    observation, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)
    pair = observation["achieved_goal"][None], observation["desired_goal"][None]
    assert robot.compute_terminated(*pair).tolist() == [True]
    robot.set_state(state)
    assert not env.step(np.zeros(2, np.float32))[2]


def test_a_continuing_maze_keeps_its_rule_when_its_goal_moves() -> None:
    env = make("PointMaze_UMaze-v3", continuing_task=True, reset_target=True)
    robot = robot_of(env)
    goal = env.reset(seed=0)[0]["desired_goal"]
    robot.robot.point_env.set_state(goal, np.zeros(2))
    observation, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(observation["desired_goal"], goal)
    assert (reward, terminated, info["is_success"]) == (1.0, False, True)
    moved = robot.get_state()["goal"]
    assert not np.array_equal(moved, goal)
    next_observation, reward, *_ = env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(next_observation["desired_goal"], moved)
    assert reward == robot.compute_reward(next_observation["achieved_goal"], moved)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", FAMILIES)
def test_a_fresh_environment_continues_bit_for_bit(env_id: str) -> None:
    one, two = make(env_id, max_episode_steps=1000), make(env_id, max_episode_steps=1000)
    one.reset(seed=3)
    trace(one, 37, seed=5)
    two.reset(seed=99)
    trace(two, 11, seed=6)
    state = robot_of(one).get_state()
    robot_of(one).set_state(state)
    robot_of(two).set_state(state)
    assert_same(trace(one, 200, seed=7), trace(two, 200, seed=7))


@pytest.mark.slow
def test_setting_a_state_keeps_it() -> None:
    for env_id in EXACT:
        env = robot_of(make(env_id))
        env.reset(seed=1)
        trace(env, 5, seed=0)
        state = env.get_state()
        env.set_state(state)
        again = env.get_state()
        np.testing.assert_array_equal(state["physics"], again["physics"])
        np.testing.assert_array_equal(state["goal"], again["goal"])
        assert (state["generator"], state["simulator_generator"]) == (
            again["generator"],
            again["simulator_generator"],
        )


@pytest.mark.slow
def test_a_new_process_continues_bit_for_bit() -> None:
    states: dict[str, Any] = {}
    expected: dict[str, list[list[str]]] = {}
    for env_id in EXACT:
        env = make(env_id, max_episode_steps=1000)
        env.reset(seed=3)
        trace(env, 30, seed=5)
        state = robot_of(env).get_state()
        states[env_id] = {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in state.items()
        }
        robot_of(env).set_state(state)
        expected[env_id] = continued(env)
    done = subprocess.run(
        [sys.executable, continue_robotics.__file__],
        input=json.dumps(states),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == expected


def test_the_state_of_another_environment_is_refused() -> None:
    reach, push = robot_of(make("FetchReach-v4")), robot_of(make("FetchPush-v4"))
    push.reset(seed=0)
    with pytest.raises(ValueError, match="taken from another environment"):
        reach.set_state(push.get_state())


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["FetchReach-v4", "FetchPush-v4", "PointMaze_UMaze-v3"])
def test_the_checkers_pass(env_id: str) -> None:
    problems = check_env(lambda: make(env_id), episodes=2)
    assert [str(problem) for problem in problems if problem.level != "note"] == []


def test_seeds_and_generators_are_the_packaged_ones() -> None:
    packaged = gym.make("FetchReach-v4", disable_env_checker=True)
    ours = make("FetchReach-v4")
    first, _ = packaged.reset(seed=11)
    second, info = ours.reset(seed=11)
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    assert info["is_success"] is False
    assert ours.unwrapped.np_random is robot_of(ours).robot.np_random


def test_wrapped_and_unknown_environments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pass env\.unwrapped"):
        RoboticsEnv(gym.make("FetchReach-v4"))
    with pytest.raises(ValueError, match="CartPoleEnv has no goal rule"):
        RoboticsEnv(gym.make("CartPole-v1").unwrapped)
    with pytest.raises(ValueError, match="before it computes the reward"):
        make("AntMaze_UMaze-v3")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rlkit.envs.robotics")
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ImportError, match=r'pip install "rlkit-suite\[robotics\]"'):
        __import__("rlkit.envs.robotics")


def test_an_id_of_the_missing_extra_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construct, "_import_robotics", lambda: False)
    kept = {k: v for k, v in gym.registry.items() if not k.startswith("Fetch")}
    monkeypatch.setattr(gym, "registry", kept)
    with pytest.raises(ValueError, match=r'FetchReach-v4.*pip install "rlkit-suite\[robotics\]"'):
        make("FetchReach-v4")


@pytest.mark.parametrize("env_id", ["FetchReach-v4", "PointMaze_UMaze-v3"])
def test_a_pickled_environment_continues_from_a_state(env_id: str) -> None:
    env: Any = make(env_id).unwrapped
    env.reset(seed=1)
    other: Any = pickle.loads(pickle.dumps(env))
    other.reset(seed=5)
    other.set_state(env.get_state())
    action = env.action_space.sample()
    expected, found = env.step(action)[0], other.step(action)[0]
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_a_pickled_environment_still_hides_the_goal() -> None:
    arguments = {"entry_point": "gymnasium_robotics.envs.fetch.reach:MujocoFetchReachEnv"}
    env = load(**arguments, show_goal=False)
    other: Any = pickle.loads(pickle.dumps(env))
    for one in (env, other):
        assert one.robot.model.site("target0").rgba[3] == 0


def test_the_seed_is_that_of_the_last_reset() -> None:
    env = make("FetchReach-v4").unwrapped
    env.reset(seed=42)
    env.reset()
    assert env.np_random_seed == 42


@pytest.mark.parametrize("env_id", ["FetchReach-v4", "PointMaze_UMaze-v3"])
def test_the_simulator_has_its_own_names(env_id: str) -> None:
    env = make(env_id).unwrapped
    env.reset(seed=0)
    before = env.data.qpos.copy()
    assert len(before) == env.model.nq
    for _ in range(3):
        env.step(np.ones(env.action_space.shape, np.float32))
    assert not np.array_equal(env.data.qpos, before)
    with pytest.raises(AttributeError, match="'RoboticsEnv' object has no attribute 'datas'"):
        _ = env.datas
    env.close()
