"""Values against steps to the goal, and episodes in which the achieved goal moved."""

import numpy as np
import pytest

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.offpolicy import goal_diagnostics
from rlkit.offpolicy.goal_diagnostics import DISTANCES, goal_moved, value_curve
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [16], "learning_starts": 10**6, "device": "cpu", "seed": 3}


def collected(algorithm=SAC, env="rlkit/PointMaze-U-v0", steps=800, **options):
    """An agent that has collected and not learned."""
    agent = algorithm("MultiInputPolicy", make_vec_env(make, env, 4, 7), **{**SMALL, **options})
    return agent.learn(steps, log_interval=None)


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [(SAC, "rlkit/PointMaze-U-v0"), (TD3, "rlkit/PointMaze-U-v0"), (DQN, "rlkit/BitFlip-v0")],
)
@pytest.mark.parametrize(
    "encoder", [None, {"name": "gru", "hidden": 8, "layers": 2, "dropout": 0.2}]
)
def test_curve_changes_nothing(algorithm, env, encoder):
    agent = collected(algorithm, env, encoder=encoder)
    generators = lambda: (  # noqa: E731
        agent.rng.bit_generator.state,
        agent.replay_buffer.rng.bit_generator.state,
        agent.learner.generator.get_state().tolist(),
    )
    before, rows = generators(), agent.replay_buffer.storage.reward.copy()
    curve = value_curve(agent)
    assert np.isfinite(curve.value).all()
    assert generators() == before
    np.testing.assert_array_equal(agent.replay_buffer.storage.reward, rows)


def test_curve_equals_a_loop_over_steps(monkeypatch):
    monkeypatch.setattr(goal_diagnostics, "MOMENTS", 30)
    agent = collected()
    seen = {}

    def values(batch):
        seen.setdefault("goals", []).append(batch["goal"][:, 0].numpy())
        seen.setdefault("observations", []).append(batch["observation"][:, 0].numpy())
        return batch["reward"].new_full((len(batch["reward"]),), -2.0)

    monkeypatch.setattr(agent.learner, "values", values)
    curve = value_curve(agent)
    np.testing.assert_array_equal(curve.value, -2.0)
    storage, rule = agent.replay_buffer.storage, agent.replay_buffer.rule
    achieved = storage.observation["achieved_goal"]
    for k, goals in enumerate(seen["goals"]):
        distance, returns = curve.steps[k], []
        for goal, observation in zip(goals, seen["observations"][k], strict=True):
            start = np.flatnonzero((achieved == observation[:2]).all(axis=1))
            start = next(i for i in start if np.allclose(achieved[i + distance], goal))
            assert not rule.success(achieved[start][None], goal[None])[0]
            reward = [
                rule.reward(achieved[start + j][None], goal[None])[0]
                for j in range(1, distance + 1)
            ]
            returns.append(sum(r * 0.99**j for j, r in enumerate(reward)))
        assert curve.achieved[k] == pytest.approx(np.mean(returns))


def test_distances_are_limited_by_the_episodes():
    agent = collected(DQN, "rlkit/BitFlip-v0")
    assert set(value_curve(agent).steps) == {d for d in DISTANCES if d <= 10}


def test_moved_compares_the_ends_of_episodes():
    agent = collected(steps=4 * 100)  # one whole episode in each environment
    storage, rule = agent.replay_buffer.storage, agent.replay_buffer.rule
    achieved = storage.observation["achieved_goal"].reshape(4, storage.slots, -1)
    expected = [not rule.success(row[100][None], row[0][None])[0] for row in achieved]
    np.testing.assert_array_equal(goal_moved(agent, np.arange(4)), expected)
    assert agent.metrics.state_dict()["moved"].tolist() == [sum(expected), 4]


def test_tags_are_recorded():
    agent = collected(steps=600, learning_starts=500)
    agent.logger.output_formats = []
    recorded = {}
    agent.logger.record = lambda name, value, exclude=None: recorded.update({name: value})
    agent.dump_logs()
    assert 0 <= recorded["rollout/goal_moved"] <= 1
    assert any(name.startswith("value/steps_to_goal_") for name in recorded)


def test_no_curve_without_goals():
    agent = SAC("MlpPolicy", make_vec_env(make, "Pendulum-v1", 1, 7), **SMALL).learn(50)
    assert value_curve(agent) is None
