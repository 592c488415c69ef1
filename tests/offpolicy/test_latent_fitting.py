"""Latent models that are fitted again during training."""

import itertools

import numpy as np
import pytest
import torch
from resuming import TOTAL, advance, assert_resumes, assert_same, forget_clocks, start
from test_observation_encoder import LITTLE, MAZE, REACH, SETTINGS, SMALL_VAE, MovingBar, agent_of

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.latents import PCA
from rlkit.latents.pretraining import Pretraining

OFTEN = {**LITTLE, "refresh_every": 40, "refresh_steps": 3}
GRU = {"encoder": {"name": "gru", "hidden": 5}, "start": "stored", "window": 4}


def refreshing(env_id=REACH, latent=SMALL_VAE, algorithm=SAC, num_envs=2, **options):
    chosen = {"pretraining": OFTEN, "batch_size": 4, **options}
    return agent_of(env_id, latent, algorithm, num_envs, **chosen)


def stored_latents(agent):
    """Slots of the stored observations, their images, and the latents that are read there."""
    storage = agent.replay_buffer.storage
    column = storage.columns["observation"]
    slots = np.flatnonzero(storage.has_action)
    return slots, column.images(slots), column.take(slots)


@pytest.mark.slow
def test_batches_hold_latents_of_the_current_version():
    agent = refreshing().learn(130)
    assert agent.observation_encoder.version == 1 + 3
    storage, encoder = agent.replay_buffer.storage, agent.observation_encoder
    assert storage.observation["observation"].dtype == np.uint8
    made = storage.columns["observation"].latents.version
    assert len(np.unique(made[storage.has_action])) > 2, "some latents are of older versions"
    slots, images, latents = stored_latents(agent)
    np.testing.assert_allclose(latents, encoder.encode(images), atol=1e-5)
    goals = storage.goal_id[slots]
    expected = encoder.encode(storage.goals.stored(goals))
    np.testing.assert_allclose(storage.goals.take(goals), expected, atol=1e-5)
    batch = agent.replay_buffer.sample(50)
    assert batch.observation["observation"].shape[2:] == (3,)
    assert batch.observation["achieved_goal"].shape[2:] == (5,)
    np.testing.assert_array_equal(
        batch.observation["achieved_goal"][..., :3], batch.observation["observation"]
    )
    success = agent.rule.success(batch.observation["achieved_goal"][:, 1], batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], success - 1.0)


@pytest.mark.slow
def test_before_the_first_refresh_training_equals_that_with_a_frozen_model():
    """Up to rounding: images are encoded in other batches."""
    frozen, lazy = (
        refreshing(pretraining={**LITTLE, "refresh_every": every}).learn(48) for every in (0, 500)
    )
    assert frozen.observation_encoder.latent.vector.equal(lazy.observation_encoder.latent.vector)
    actions = (agent.replay_buffer.storage.action for agent in (frozen, lazy))
    np.testing.assert_allclose(*actions, atol=1e-4)
    one, other = frozen.replay_buffer.sample(20), lazy.replay_buffer.sample(20)
    for key, value in one.observation.items():
        np.testing.assert_allclose(value, other.observation[key], atol=1e-5)
    np.testing.assert_allclose(one.desired_goal, other.desired_goal, atol=1e-5)
    for name in ("actor", "critic"):
        torch.testing.assert_close(frozen.learner.state[name], lazy.learner.state[name])


@pytest.mark.slow
def test_a_refresh_cuts_running_episodes_and_begins_new_ones():
    agent = refreshing()
    cut, storage = [], agent.replay_buffer.storage
    for steps in agent.iterate(44):
        if agent.observation_encoder.is_ready and steps == 40 and not cut:
            assert not storage.begins.any()
            cut = [storage.cursor.copy()]
    assert agent.observation_encoder.version == 2
    assert agent.episodes_cut == 2
    (cursor,) = cut
    last = (cursor - 1) % storage.slots
    rows = np.arange(2)
    assert storage.truncated.reshape(2, -1)[rows, last].all()
    assert not storage.terminated.reshape(2, -1)[rows, last].any()
    assert storage.length.reshape(2, -1)[rows, last].tolist() == [20, 20]
    # The episodes after it have taken two steps.
    newest = storage.step_index.reshape(2, -1)[rows, storage.cursor % storage.slots]
    assert newest.tolist() == [2, 2]


@pytest.mark.slow
def test_stored_hidden_states_of_old_versions_are_zero():
    agent = refreshing(MAZE, **GRU).learn(40)
    storage = agent.replay_buffer.storage
    assert all(np.abs(part[storage.has_action]).max() > 0 for part in storage.hidden_state)
    agent.learn(4, reset_num_timesteps=False)  # the refresh comes first
    assert agent.observation_encoder.version == 2
    newest = storage.step_index[storage.has_action] < 2
    for part in storage.hidden_state:
        old = part[storage.has_action][storage.length[storage.has_action] > 0]
        np.testing.assert_array_equal(old, 0.0)
    assert newest.any()
    batch = agent.replay_buffer.sample(60)
    later = ~batch.is_first[:, 0]
    assert later.any()
    fresh = [(part[later] == 0).all(axis=1) for part in batch.hidden_state]
    assert np.all(fresh, axis=0).mean() > 0.5


@pytest.mark.slow
def test_rewards_follow_from_the_current_version():
    agent = refreshing(reward_source="latent", algorithm=TD3).learn(40)
    threshold, storage = (
        agent.observation_encoder.latent_rule.threshold,
        agent.replay_buffer.storage,
    )
    stored = storage.reward.copy()
    agent.learn(60, reset_num_timesteps=False)
    assert agent.observation_encoder.version == 3
    assert agent.observation_encoder.latent_rule.threshold != threshold
    np.testing.assert_array_equal(storage.reward[stored != 0], stored[stored != 0])
    for _ in range(2):
        batch = agent.replay_buffer.sample(300)
        gap = batch.observation["achieved_goal"][:, 1] - batch.desired_goal[:, 0]
        reached = np.linalg.norm(gap, axis=1) < agent.observation_encoder.latent_rule.threshold
        assert not batch.relabelled.all()
        np.testing.assert_array_equal(batch.reward[:, 0], reached - 1.0)
        original = ~batch.relabelled
        agent.observation_encoder.latent_rule.threshold = float(
            np.median(np.linalg.norm(gap[original[:, 0]], axis=1))
        )
    assert 0.2 < reached[original[:, 0]].mean() < 0.8


@pytest.mark.slow
def test_intervals_can_grow():
    agent = refreshing(pretraining={**OFTEN, "refresh_every": 20, "refresh_growth": 2.0})
    first_steps = {}
    for steps in agent.iterate(200):
        first_steps.setdefault(agent.observation_encoder.version, steps)
    # A refresh comes at the beginning of a round, whose steps are two.
    assert {version: first_steps[version] for version in (2, 3, 4)} == {2: 22, 3: 62, 4: 142}
    assert 5 not in first_steps


@pytest.mark.slow
def test_a_requested_refresh_comes_before_the_next_step():
    agent = refreshing(pretraining={**OFTEN, "refresh_every": 10_000}).learn(30)
    cursor = agent.replay_buffer.storage.cursor.copy()
    agent.refresh()
    assert agent.observation_encoder.version == 1
    np.testing.assert_array_equal(agent.replay_buffer.storage.cursor, cursor)
    agent.learn(10, reset_num_timesteps=False)
    assert agent.observation_encoder.version == 2
    assert agent.episodes_cut == 2
    agent.learn(20, reset_num_timesteps=False)
    assert agent.observation_encoder.version == 2


def test_a_refresh_without_images_or_steps_is_refused():
    with pytest.raises(ValueError, match=r"nothing to refresh: .* frozen"):
        agent_of().learn(20).refresh()
    with pytest.raises(ValueError, match="replay buffer is empty"):
        refreshing().refresh()


def test_rewards_of_the_latent_model_need_episodes_with_near_images():
    schedule = {**OFTEN, "stay": 9, "near": 9, "refresh_every": 16}
    agent = refreshing(reward_source="latent", pretraining=schedule).learn(16)
    vector = agent.observation_encoder.latent.vector
    with pytest.raises(ValueError, match=r"pretraining\.near = 9 steps"):
        agent.learn(10, reset_num_timesteps=False)
    assert agent.observation_encoder.latent.vector is vector


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refresh_every": -1}, "refresh_every = -1 must be a whole number >= 0"),
        ({"refresh_every": 10.5}, "refresh_every = 10.5 must be a whole number >= 0"),
        ({"refresh_steps": 0}, "refresh_steps = 0 must be a whole number >= 1"),
        ({"refresh_growth": 0.5}, "refresh_growth = 0.5 must be >= 1"),
        ({"refresh_growth": float("inf")}, "refresh_growth = inf must be >= 1"),
    ],
)
def test_a_schedule_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Pretraining(**options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env_id", "latent", "options"),
    [
        (SAC, REACH, SMALL_VAE, {}),
        (TD3, REACH, {"name": "pca", "dims": 4}, {"reward_source": "latent"}),
        (SAC, MAZE, SMALL_VAE, GRU),
        (SAC, MAZE, SMALL_VAE, {"encoder": "gru", "goal_mode": "early", "previous_reward": True}),
    ],
)
def test_resume_is_exact_across_refreshes(tmp_path, algorithm, env_id, latent, options):
    chosen = {"latent": latent, "pretraining": OFTEN, "batch_size": 4, "buffer_size": 90}
    chosen |= {"learning_starts": 12, **options}
    agent = assert_resumes(tmp_path, algorithm, make, env_id, 2, chosen, rounds=(40, 40, 25))
    assert agent.observation_encoder.version > 2


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [MAZE, ""])
def test_an_interrupted_refresh_is_repeated_exactly(tmp_path, env_id):
    """Also where environments cannot be saved."""
    algorithm, build = (SAC, make) if env_id else (DQN, lambda _: MovingBar())
    rewards = {"reward_source": "latent", **GRU, "goal_mode": "late"} if env_id else {}
    chosen = {"latent": SMALL_VAE, "pretraining": OFTEN, "batch_size": 4, "buffer_size": 60}
    setting = algorithm, build, env_id, 2, {**chosen, "learning_starts": 12, **rewards}

    whole = start(*setting)
    course = whole.iterate(TOTAL)
    begun = next(_ for _ in course if whole.observation_encoder.is_stale and whole.episodes_cut)
    assert begun == whole.num_timesteps == 40
    next(course)  # two gradient steps of three are done
    assert whole.observation_encoder.version == 1
    write_checkpoint(tmp_path / "middle", whole.state_dict())
    for _ in itertools.islice(course, 40):
        pass
    assert whole.observation_encoder.version == 3
    write_checkpoint(tmp_path / "whole", whole.state_dict())

    resumed = start(*setting)
    resumed.load_state_dict(read_checkpoint(tmp_path / "middle"))
    advance(resumed, 40 + 2)
    write_checkpoint(tmp_path / "resumed", resumed.state_dict())
    states = (forget_clocks(read_checkpoint(tmp_path / name)) for name in ("whole", "resumed"))
    assert_same(*states)


@pytest.mark.slow
def test_a_loaded_agent_encodes_its_replay_buffer_with_its_own_model(tmp_path):
    agent = refreshing(MAZE).learn(60)
    agent.save(tmp_path / "agent.zip")
    agent.save_replay_buffer(tmp_path / "replay")
    loaded = SAC.load(tmp_path / "agent.zip", agent.env)
    assert loaded.observation_encoder.version == 2
    loaded.load_replay_buffer(tmp_path / "replay")
    _, images, latents = stored_latents(loaded)
    assert len(images) > 40
    np.testing.assert_allclose(latents, agent.observation_encoder.encode(images), atol=1e-5)
    other = refreshing(MAZE, seed=1).learn(60)  # another model, of the same version
    assert other.observation_encoder.version == 2
    other.load_replay_buffer(tmp_path / "replay")
    _, images, latents = stored_latents(other)
    np.testing.assert_allclose(latents, other.observation_encoder.encode(images), atol=1e-5)
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.observation_encoder.version == 2, "the interval begins with the replay buffer"
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.observation_encoder.version == 3


@pytest.mark.slow
def test_latents_without_goals_and_of_wide_vectors_are_refreshed_too():
    options = {**SETTINGS, "pretraining": OFTEN, "latent": PCA(dims=2)}
    agent = DQN("MlpPolicy", MovingBar(), **options).learn(100)
    assert agent.observation_encoder.version == 3
    assert agent._last_obs.shape == (1, 32, 32, 1)
    assert agent.replay_buffer.sample(4).observation["observation"].shape == (4, 2, 2)
    agent = TD3("MlpPolicy", "Pendulum-v1", **{**options, "learning_rate": 1e-4}).learn(100)
    assert agent.observation_encoder.version == 3
    assert agent.replay_buffer.storage.observation["observation"].shape[1:] == (3,)
    slots, rows, latents = stored_latents(agent)
    np.testing.assert_allclose(latents, agent.observation_encoder.encode(rows), atol=1e-5)
    assert len(slots) > 90


@pytest.mark.slow
def test_goal_outcomes_are_positions():
    agent = refreshing(pretraining={**OFTEN, "refresh_every": 250}).learn(300)
    goals, reached = agent.goal_outcomes
    assert goals.shape == (len(reached), 2)
    assert len(reached) > 0


@pytest.mark.slow
def test_a_model_that_compares_neighbours_and_has_no_decoder_serves_an_agent():
    agent = refreshing(latent="contrastive:Contrastive").learn(60)
    assert agent.observation_encoder.version == 2
    other = agent_of(
        REACH,
        "contrastive:Contrastive",
        SAC,
        2,
        pretraining=LITTLE,
        reward_source="latent",
        goal_generator={"name": "imagined", "source": "visited"},
    ).learn(60)
    assert other.episode_goals.decoded() is None
