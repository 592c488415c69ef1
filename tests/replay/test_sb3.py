from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from naive import World, observation_space
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

import rlkit.envs  # noqa: F401
from rlkit.goals import goal_rule
from rlkit.replay import NonFiniteError
from rlkit.replay.sb3 import HindsightReplayBuffer

IDS = {SAC: "rlkit/PointMaze-Open-v0", TD3: "rlkit/PointMaze-Open-v0", DQN: "rlkit/BitFlip-v0"}


def agent(algorithm, env=None, seed=0, **options):
    env = env or gym.make(IDS[algorithm])
    rule = goal_rule(env if isinstance(env, gym.Env) else env.envs[0])
    return algorithm(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HindsightReplayBuffer,
        replay_buffer_kwargs={"rule": rule} | options,
        learning_starts=10,
        buffer_size=1000,
        batch_size=32,
        policy_kwargs={"net_arch": [16]},
        seed=seed,
        device="cpu",
    )


def buffer_of(world, **options):
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    space = observation_space(world.kind)
    options = {"rule": world.rule, "n_envs": world.num_envs, "device": "cpu", "seed": 1} | options
    return HindsightReplayBuffer(world.capacity, space, action_space, **options)


def add(buffer, step):
    now, action, reward, terminated, truncated, next_observation = step
    infos = [{"TimeLimit.truncated": bool(cut)} for cut in truncated & ~terminated]
    buffer.add(now, next_observation, action, reward, terminated | truncated, infos)


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
def test_their_agents_learn_from_it(algorithm, num_envs, n_steps):
    env = make_vec_env(IDS[algorithm], num_envs, seed=0)
    model = agent(algorithm, env, n_steps=n_steps)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(200)
    after = list(model.policy.parameters())
    assert any((one != two).any() for one, two in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)
    assert len(model.replay_buffer.replay) == model.num_timesteps


@pytest.mark.slow
def test_their_seed_seeds_it():
    weights = []
    for seed in (0, 0, 1):
        model = agent(SAC, seed=seed).learn(60)
        weights.append(next(model.actor.parameters()).detach().clone())
        sample = model.replay_buffer.sample(8).rewards
        weights[-1] = th.cat([weights[-1].flatten(), sample.flatten()])
    assert th.equal(weights[0], weights[1])
    assert not th.equal(weights[0], weights[2])


@pytest.mark.parametrize("kind", ["box", "discrete", "bits"])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_samples_are_the_replay_s(kind, n_steps):
    world = World(kind, num_envs=2, capacity=60, terminates=True, steps=n_steps, gamma=0.9)
    buffer = buffer_of(world, n_steps=n_steps, gamma=0.9)
    for _ in range(80):
        step = world.step()
        world.replay.add(*step)
        add(buffer, step)
    sample, batch = buffer.sample(64), world.replay.sample(64)
    next_observation = batch.bootstrap[:, 0]
    for key, part in batch.observation.items():
        shape = sample.observations[key].shape
        rows = np.arange(64)
        np.testing.assert_array_equal(sample.observations[key], part[:, 0].reshape(shape))
        np.testing.assert_array_equal(
            sample.next_observations[key], part[rows, next_observation].reshape(shape)
        )
    shape = (64, *buffer.obs_shape["desired_goal"])
    for side in (sample.observations, sample.next_observations):
        np.testing.assert_array_equal(side["desired_goal"], batch.desired_goal.reshape(shape))
    np.testing.assert_array_equal(sample.rewards, batch.reward)
    np.testing.assert_array_equal(sample.dones, batch.terminated)
    np.testing.assert_array_equal(sample.actions, batch.action[:, 0])
    if n_steps == 1:
        assert sample.discounts is None
    else:
        np.testing.assert_array_equal(sample.discounts, batch.discount)


@pytest.mark.parametrize("handled", [True, False])
def test_time_limits_end_values_only_if_not_handled(handled):
    world = World("box", end=1.0)
    buffer = buffer_of(world, handle_timeout_termination=handled)
    for _ in range(20):
        add(buffer, world.step())
    truncated = [e.truncated[-1] for episodes in world.envs for e in episodes[-10:]]
    assert any(truncated)
    assert bool(buffer.sample(200).dones.all()) != handled


@pytest.mark.slow
def test_saved_buffers_go_on_as_they_were(tmp_path):
    model = agent(SAC, n_steps=2).learn(120)
    model.save_replay_buffer(tmp_path / "replay.pkl")
    other = agent(SAC)
    other.load_replay_buffer(tmp_path / "replay.pkl")
    one, two = model.replay_buffer.sample(32), other.replay_buffer.sample(32)
    assert th.equal(one.rewards, two.rewards)
    assert th.equal(one.observations["desired_goal"], two.observations["desired_goal"])
    other.learn(60)
    assert len(other.replay_buffer.replay) == 180


@pytest.mark.slow
def test_a_second_learn_starts_new_episodes():
    model = agent(SAC).learn(70)  # an episode takes 50 steps
    storage = model.replay_buffer.replay.storage
    assert storage.truncated.sum() == 1
    model.learn(15)
    assert storage.truncated.sum() == 2
    first, last = storage.episode_bounds(np.array([0]), np.array([60]))
    assert (first[0], last[0]) == (51, 71)


@pytest.mark.slow
def test_normalised_environments_normalise_samples():
    env = VecNormalize(make_vec_env(IDS[SAC], 2, seed=0), norm_reward=False)
    model = agent(SAC, env).learn(200)
    replay = model.replay_buffer.replay
    state = replay.rng.bit_generator.state
    plain = model.replay_buffer.sample(16).observations
    replay.rng.bit_generator.state = state
    normal = model.replay_buffer.sample(16, env).observations
    raw = replay.storage.observation["observation"]
    assert all((row == raw).all(axis=1).any() for row in plain["observation"].numpy())
    expected = env.normalize_obs({key: value.numpy() for key, value in plain.items()})
    for key, value in normal.items():
        np.testing.assert_allclose(value, expected[key])
        assert (value != plain[key]).any()


def test_size_position_and_reset_follow_the_parent():
    world = World("box", num_envs=2, capacity=20, end=0.0)
    buffer = buffer_of(world)
    for i in range(12):
        assert (buffer.pos, buffer.full) == (i % 10, i >= 10)
        assert buffer.size() >= min(i, 10)
        add(buffer, world.step())
    buffer.reset()
    assert (buffer.pos, buffer.full, buffer.size()) == (0, False, 0)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(4)


def test_goals_are_weighted_and_a_reset_forgets_their_range():
    world = World("box", num_envs=2, capacity=60)
    weights = {"already_achieved_weight": 0.05, "out_of_range_weight": 0.5}
    shares = []
    for options in ({}, weights):
        buffer = buffer_of(world, hindsight={"future": 1.0}, **options)
        for _ in range(40):
            add(buffer, world.step())
        observed = buffer.sample(400).observations
        goals = (observed[key].numpy() for key in ("achieved_goal", "desired_goal"))
        shares.append(world.rule.success(*goals).mean())
    assert shares[1] < 0.6 * shares[0]
    assert np.isfinite(buffer.replay.goal_weights.low).all()
    buffer.reset()
    assert np.isinf(buffer.replay.goal_weights.low).all()


def test_mistakes_are_refused():
    world = World("box")
    with pytest.raises(ValueError, match="optimize_memory_usage=False"):
        buffer_of(world, optimize_memory_usage=True)
    step = world.step()
    step[0]["achieved_goal"][1] = np.nan
    with pytest.raises(NonFiniteError, match="achieved_goal"):
        add(buffer_of(world), step)


def success(hindsight):
    env = gym.make("rlkit/BitFlip-v0", bits=8)
    model = DQN(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HindsightReplayBuffer,
        replay_buffer_kwargs={"rule": goal_rule(env), "hindsight": hindsight},
        learning_rate=1e-3,
        learning_starts=200,
        batch_size=64,
        buffer_size=10_000,
        gamma=0.95,
        tau=0.05,
        target_update_interval=1,
        train_freq=2,
        exploration_final_eps=0.1,
        policy_kwargs={"net_arch": [64]},
        seed=0,
        device="cpu",
    ).learn(4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of theirs, on a missing Monitor
        returns, _ = evaluate_policy(
            model, gym.make("rlkit/BitFlip-v0", bits=8), 50, return_episode_rewards=True
        )
    return float(np.mean(np.array(returns) > -8))


@pytest.mark.slow
def test_hindsight_lets_their_dqn_flip_bits():
    assert success("future") > 0.7
    assert success("original") < 0.3
