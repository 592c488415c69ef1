"""Hindsight imitation against a naive loss, row by row."""

import numpy as np
import pytest
import torch
from random_batches import A, F, G, random_batch, same
from small_envs import Recorder

from rlkit.agents import DQN, SAC, TD3, Sizes
from rlkit.envs.make import make

SMALL = {"net_arch": (16, 16), "batch_size": 8, "gamma": 0.9}
RECURRENT = {"encoder": {"name": "gru", "hidden": 8}, "window": 4, "goal_mode": "early"}


@pytest.fixture(params=[SAC, TD3, DQN], ids=lambda one: one.__name__)
def algorithm(request):
    return request.param


def new(algorithm, seed=0, sizes=None, **options):
    if algorithm is TD3:
        options["policy_delay"] = 1
    config = algorithm.learner_class.config_class(**{**SMALL, **options})
    return algorithm.learner_class(config, sizes or Sizes(F, G, A), seed=seed)


def batch_of(algorithm, seed=0, rows=6, steps=1, known=True):
    batch = random_batch(algorithm, seed, rows, steps)
    batch["previous_action"] = random_batch(algorithm, seed + 100, rows, steps + 1)["action"]
    batch["is_first"] = np.zeros((rows, steps + 1), np.bool_)
    count = np.random.default_rng(seed).integers(0, 5, (rows, steps)) if known else 0
    batch["steps_to_goal"] = np.zeros((rows, steps), np.int32) + np.int32(count)
    return batch


def metric(learner, batch):
    names, values = learner.update(batch)
    return dict(zip(names, values.tolist(), strict=True))["imitation_loss"]


@pytest.mark.parametrize("options", [{}, {"use_sde": True}], ids=["", "gSDE"])
def test_actors_imitate_what_led_to_a_goal(options):
    for algorithm in (SAC, TD3) if not options else (SAC,):
        learner = new(algorithm, imitation=0.5, **options)
        batch = batch_of(algorithm)
        x, goal = batch["observation"][:, 0], batch["goal"][:, 0]
        mode, _ = learner.act(x, goal, (), np.zeros(6, np.bool_), explore=False)
        expected = 0.0
        for row in range(6):
            steps = int(batch["steps_to_goal"][row, 0])
            if steps > 0:
                error = ((mode[row] - batch["action"][row, 0]) ** 2).sum()
                expected += 0.9**steps * error / 6
        assert expected > 0.1
        assert metric(learner, batch) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("choices", [(), (3, 2)], ids=["one", "two components"])
def test_q_values_of_other_actions_are_held_below_by_a_margin(choices):
    width = sum(choices) or A
    learner = new(
        DQN, imitation=0.5, imitation_margin=0.4, critics=2, sizes=Sizes(F, G, width, choices)
    )
    batch = batch_of(DQN)
    if choices:
        parts = [np.random.default_rng(n).integers(0, n, (6, 1)) for n in choices]
        batch["action"] = np.stack(parts, axis=-1)
    x, goal = (torch.from_numpy(batch[name][:, 0]) for name in ("observation", "goal"))
    values = learner.critic(learner.state["critic"], (x[:, :0], x, goal)).numpy()
    expected = 0.0
    for member in values:
        for row, of_row in enumerate(member):
            steps = int(batch["steps_to_goal"][row, 0])
            taken, start, losses = np.atleast_1d(batch["action"][row, 0]), 0, []
            for component, count in enumerate(choices or (A,)):
                head = of_row[start : start + count]
                best = max(head[a] + 0.4 * (a != taken[component]) for a in range(count))
                losses.append(best - head[taken[component]])
                start += count
            expected += (0.9**steps if steps > 0 else 0) * np.mean(losses) / 6
    assert expected > 0.1
    assert metric(learner, batch) == pytest.approx(expected, rel=1e-4)


def test_only_steps_to_a_known_goal_are_imitated(algorithm):
    plain, imitating = new(algorithm), new(algorithm, imitation=5.0)
    for seed in range(3):
        batch = batch_of(algorithm, seed, known=False)
        plain.update(batch)
        assert metric(imitating, batch) == 0
    assert same(plain.weights(), imitating.weights())
    batch = batch_of(algorithm)
    for learner in (plain, imitating):
        learner.update(batch)
    assert not same(plain.weights(), imitating.weights())


@pytest.mark.parametrize("recurrent", [{}, RECURRENT], ids=["", "gru"])
def test_imitation_alone_finds_the_actions(algorithm, recurrent):
    learner = new(algorithm, imitation=100.0, learning_rate=1e-2, **recurrent)
    batch = batch_of(algorithm, steps=4)
    batch["steps_to_goal"][:] = 1
    losses = [metric(learner, batch) for _ in range(150)]
    assert losses[-1] < 0.2 * losses[0]


def test_padding_is_not_imitated(algorithm):
    one, other = (new(algorithm, imitation=1.0, **RECURRENT) for _ in range(2))
    batch = batch_of(algorithm, steps=4)
    batch["mask"][:3, 2:] = 0
    changed = {**batch, "steps_to_goal": batch["steps_to_goal"].copy()}
    changed["steps_to_goal"][:3, 2:] += 1
    for learner, given in ((one, batch), (other, changed)):
        learner.update(given)
    assert same(one.weights(), other.weights())


def test_it_is_requested_of_the_replay_buffer_only_where_it_is_on(algorithm):
    for recurrent in ({}, RECURRENT):
        assert new(algorithm, imitation=0.1, **recurrent).replay_options()["steps_to_goal"] is True
        assert "steps_to_goal" not in new(algorithm, **recurrent).replay_options()


def test_a_loaded_agent_imitates_again_once_it_has_an_environment(tmp_path):
    weights = {"already_achieved_weight": 0.1, "out_of_range_weight": 0.1}
    options = {**SMALL, "learning_starts": 60, "seed": 0, "device": "cpu", "replay": weights}
    env = make("rlkit/PointMaze-Open-v0")
    SAC("MultiInputPolicy", env, imitation=0.3, **options).save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    loaded.predict(env.reset(seed=0)[0])
    loaded.set_env(env)
    loaded.learn(90)
    names = next(iter(loaded.metrics.state_dict()["sums"]))
    assert "imitation_loss" in names.split(",")
    assert loaded.replay_buffer.sample(100).steps_to_goal.max() > 0
    assert loaded.replay_buffer.goal_weights is not None


def test_settings_and_tasks_that_do_not_fit_are_refused(algorithm):
    with pytest.raises(ValueError, match=r"imitation = -0\.1 must be >= 0"):
        new(algorithm, imitation=-0.1)
    with pytest.raises(ValueError, match=r"imitation = 0\.1 .* has no goals"):
        new(algorithm, imitation=0.1, sizes=Sizes(F, 0, A))
    if algorithm is SAC:
        with pytest.raises(ValueError, match="has no goals"):
            SAC("MlpPolicy", Recorder(), imitation=0.1)
        env = make("rlkit/PointMaze-Open-v0")
        with pytest.raises(ValueError, match=r"imitation = 0\.1 .* achieved later.*'original'"):
            SAC("MultiInputPolicy", env, imitation=0.1, replay={"hindsight": "original"})
    if algorithm is DQN:
        with pytest.raises(ValueError, match=r"imitation_margin = -1"):
            new(DQN, imitation_margin=-1.0)
