import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.envs.make import make
from rlkit.experiment.evaluate import evaluate, wilson
from rlkit.goals import DistanceRule
from rlkit.vec.vec_env import make_vec_env


class Line(gym.Env):
    """Steps towards a goal on a line; every third start is at its goal."""

    observation_space = spaces.Dict(
        {key: spaces.Box(-9, 9, (1,)) for key in ("observation", "achieved_goal", "desired_goal")}
    )
    action_space = spaces.Box(-1, 1, (1,))
    rule = DistanceRule(0.1)

    def __init__(self, tells_success=True, solved_every=3):
        self.tells_success, self.solved_every = tells_success, solved_every

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen_seed = seed
        self.position, self.steps = 0.0, 0
        solved = seed is not None and seed % self.solved_every == 0
        self.goal = 0.0 if solved else 2.0
        return self.observe(), {}

    def observe(self):
        position = np.array([self.position], np.float32)
        goal = np.array([self.goal], np.float32)
        return {"observation": position, "achieved_goal": position, "desired_goal": goal}

    def step(self, action):
        self.position += float(action[0])
        self.steps += 1
        reached = abs(self.position - self.goal) < 0.1
        info = {"is_success": reached} if self.tells_success else {}
        return self.observe(), -1.0, False, self.steps == 2, info


class Fixed:
    def __init__(self, action):
        self.action = action
        self.starts = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert deterministic
        self.starts.append(episode_start.copy())
        n = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return np.full((n, 1), self.action, np.float32), state


@pytest.mark.parametrize("tells_success", [True, False])
@pytest.mark.parametrize("num_envs", [1, 4, 16])
def test_solved_starts_are_replaced_and_every_seed_is_played_once(num_envs, tells_success):
    venv = DummyVecEnv([lambda: Line(tells_success)] * num_envs)
    result = evaluate(Fixed(1.0), venv, 10, seed=100, rule=Line.rule)
    assert [row.seed for row in result.rows] == [seed for seed in range(100, 200) if seed % 3][:10]
    assert result.excluded == len([seed for seed in range(100, 114) if seed % 3 == 0])
    assert result.success_rate == 1.0
    assert all(row.length == 2 and row.return_ == -2.0 for row in result.rows)
    assert result.rows[0].start == pytest.approx([0.0])
    assert result.rows[0].goal == result.rows[0].final == pytest.approx([2.0])


def test_success_counts_at_the_last_step_only():
    venv = DummyVecEnv([Line] * 2)
    assert evaluate(Fixed(2.0), venv, 4, seed=1, rule=Line.rule).success_rate == 0.0


def test_the_carry_is_told_where_episodes_start():
    agent = Fixed(1.0)
    evaluate(agent, DummyVecEnv([Line]), 2, seed=1, rule=Line.rule)
    assert [bool(start[0]) for start in agent.starts] == [True, False, True, False]


def test_nothing_but_solved_starts_is_an_error():
    venv = DummyVecEnv([lambda: Line(solved_every=1)] * 4)
    with pytest.raises(ValueError, match="starts satisfied their goal already"):
        evaluate(Fixed(1.0), venv, 5, seed=0, rule=Line.rule)


def test_without_goals_success_is_unknown():
    venv = make_vec_env(make, "Pendulum-v1", 2)
    summary = evaluate(Fixed(0.0), venv, 3, seed=0).summary()
    assert summary["success_rate"] is None
    assert summary["success_ci95"] is None
    assert summary["episodes"] == 3
    assert summary["length_mean"] == 200


def test_native_and_single_environments_agree():
    env_id = "rlkit/PointMaze-Open-v0"

    class Towards:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            gap = observation["desired_goal"] - observation["achieved_goal"]
            return np.clip(4 * gap, -1, 1).astype(np.float32), state

    native = make_vec_env(make, env_id, 16)
    single = DummyVecEnv([lambda: make(env_id)] * 3)
    rule = make(env_id).unwrapped.rule
    one, two = (evaluate(Towards(), venv, 16, 7, rule) for venv in (native, single))
    assert [(r.seed, r.success, r.length) for r in one.rows] == [
        (r.seed, r.success, r.length) for r in two.rows
    ]
    assert one.summary()["return_mean"] == pytest.approx(two.summary()["return_mean"])
    assert one.success_rate > 0


@pytest.mark.parametrize(
    ("successes", "low", "high"),
    [(0, 0.0, 0.0370), (100, 0.9630, 1.0), (95, 0.8882, 0.9785), (50, 0.4038, 0.5962)],
)
def test_wilson_interval_matches_published_values(successes, low, high):
    assert wilson(successes, 100) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
