"""Agents with a latent model: latents in place of images."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from resuming import assert_resumes

import rlkit.envs  # noqa: F401  registers them
from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.envs.wrappers.pixel_observation import PixelObservation
from rlkit.goals import ExactRule, GoalRule, LatentDistanceRule, LatentGoalRule
from rlkit.latents import PCA, VAE
from rlkit.latents.pretraining import Pretraining
from rlkit.offpolicy.latent_fitting import _random_frames
from rlkit.offpolicy.observation_encoder import LatentObservationEncoder
from rlkit.vec.vec_env import make_vec_env

REACH, MAZE = "rlkit/PlanarReach-Pixels-v0", "rlkit/PointMaze-U-Pixels-v0"
LITTLE = {"frames": 120, "stay": 3, "steps": 4, "batch_size": 8}
SMALL_VAE = {"name": "vae", "dims": 3, "channels": (4, 4, 4), "hidden": (16,), "variance": 0.1}
SETTINGS = {
    "seed": 0,
    "net_arch": (16,),
    "batch_size": 8,
    "learning_starts": 16,
    "buffer_size": 400,
    "pretraining": LITTLE,
}


def agent_of(env_id=REACH, latent=None, algorithm=SAC, num_envs=2, **options):
    env = make_vec_env(make, env_id, num_envs, 0, size=32)
    chosen = {**SETTINGS, "latent": latent or PCA(dims=4), **options}
    return algorithm("MultiInputPolicy", env, **chosen)


class MovingBar(gym.Env):
    """Images of a bright bar that actions move to the left or right; without goals."""

    observation_space = spaces.Box(0, 255, (32, 32, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = int(self.np_random.integers(32))
        return self._image(), {}

    def step(self, action):
        self.position = int(np.clip(self.position + action - 1, 0, 31))
        return self._image(), -abs(self.position - 16) / 16, False, False, {}

    def _image(self):
        image = np.zeros((32, 32, 1), np.uint8)
        image[:, max(self.position - 2, 0) : self.position + 3] = 255
        return image


def random_frames(agent):
    encoder = agent.observation_encoder
    return _random_frames(encoder, agent.env, encoder.pretraining_seeds[0])


@pytest.mark.slow
def test_latents_replace_images_and_get_the_same_rewards():
    agent = agent_of().learn(120)
    storage, latent = agent.replay_buffer.storage, agent.observation_encoder.latent
    assert (latent.version, latent.dims) == (1, 4)
    assert {key: part.shape[1:] for key, part in storage.observation.items()} == {
        "observation": (4,),
        "achieved_goal": (6,),
    }
    raw = agent.env.reset()
    encoded = agent.observation_encoder.encode_observation(raw)
    np.testing.assert_array_equal(encoded["observation"], latent.encode(raw["observation"]))
    np.testing.assert_array_equal(encoded["achieved_goal"][:, :4], encoded["observation"])
    np.testing.assert_allclose(
        encoded["desired_goal"][:, :4], latent.encode(raw["desired_goal"]), atol=1e-5
    )
    for _ in range(30):
        raw, reward, _, infos = agent.env.step([agent.action_space.sample() for _ in range(2)])
        encoded = agent.observation_encoder.encode_observation(raw)
        goals = encoded["achieved_goal"], encoded["desired_goal"]
        np.testing.assert_array_equal(agent.rule.reward(*goals), reward)
        success = [info["is_success"] for info in infos]
        np.testing.assert_array_equal(agent.rule.success(*goals), success)


@pytest.mark.slow
def test_networks_read_latents_and_no_positions():
    agent = agent_of().learn(60)
    encoded = agent.observation_encoder.encode_observation(agent.env.reset())
    other = {key: value.copy() for key, value in encoded.items()}
    other["desired_goal"][:, 4:] += 1
    other["achieved_goal"][:, 4:] += 1
    for one, two in zip(agent.adapter.vectors(encoded), agent.adapter.vectors(other), strict=True):
        np.testing.assert_array_equal(one, two)
    batch = agent.adapter.batch(agent.replay_buffer.sample(5))
    assert (batch["observation"].shape[2], batch["goal"].shape[2]) == (4, 4)


@pytest.mark.slow
def test_hindsight_goals_are_achieved_ones_with_rewards_of_the_rule():
    agent = agent_of(replay={"hindsight": "future"}).learn(200)
    batch = agent.replay_buffer.sample(300)
    rows = batch.relabelled[:, 0]
    assert 0.6 < rows.mean() < 0.95
    achieved = batch.observation["achieved_goal"][:, 1]
    success = agent.rule.success(achieved[rows], batch.desired_goal[rows, 0])
    np.testing.assert_array_equal(batch.reward[rows, 0], success - 1.0)
    assert 0 < success.mean() < 1


@pytest.mark.slow
def test_an_interrupted_pretraining_is_repeated_exactly():
    vectors = []
    for stops in (0, 2):
        agent = agent_of(latent=SMALL_VAE)
        rounds = agent.iterate(40)
        for _ in range(stops):
            next(rounds)
        if stops:
            assert agent.observation_encoder.latent.version == 0
            fresh = agent_of(latent=SMALL_VAE)
            fresh.load_state_dict(agent.state_dict())
            agent = fresh
        agent.learn(40)
        vectors.append((agent.observation_encoder.latent.vector, agent.learner.state["actor"]))
    for one, other in zip(*vectors, strict=True):
        assert one.equal(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "env_id", "latent", "options"),
    [
        (SAC, REACH, {"name": "pca", "dims": 4}, {}),
        (TD3, MAZE, SMALL_VAE, {}),
        (TD3, REACH, {"name": "pca", "dims": 4}, {"reward_source": "latent"}),
        (SAC, MAZE, SMALL_VAE, {"encoder": {"name": "gru", "hidden": 5}, "start": "stored"}),
    ],
)
def test_resume_is_exact_and_includes_the_latent_model(
    tmp_path, algorithm, env_id, latent, options
):
    chosen = {"latent": latent, "pretraining": LITTLE, "batch_size": 4, "buffer_size": 200}
    chosen |= {"learning_starts": 12, **options}
    agent = assert_resumes(tmp_path, algorithm, make, env_id, 2, chosen, rounds=(30, 20, 12))
    assert agent.observation_encoder.latent.version == 1


@pytest.mark.slow
def test_observations_after_cut_episodes_are_latents(tmp_path):
    chosen = {"latent": {"name": "pca", "dims": 2}, "pretraining": LITTLE, "batch_size": 4}
    chosen |= {"learning_starts": 12, "buffer_size": 200}
    agent = assert_resumes(tmp_path, DQN, lambda _: MovingBar(), "", 2, chosen, rounds=(30, 20, 12))
    assert agent.episodes_cut > 0
    agent.state_dict()
    assert agent._last_obs.shape == (2, 2)


@pytest.mark.slow
def test_a_continued_training_without_a_fit_begins_with_it():
    agent = agent_of(latent=SMALL_VAE)
    next(agent.iterate(40))  # the first step of the fit, whose environments have been reset
    agent.learn(40, reset_num_timesteps=False)
    assert agent.observation_encoder.latent.version == 1
    assert agent.num_timesteps == 40


@pytest.mark.slow
def test_a_loaded_agent_acts_the_same_with_and_without_environments(tmp_path):
    agent = agent_of(latent=SMALL_VAE).learn(60)
    agent.save(tmp_path / "agent.zip")
    raw = agent.env.reset()
    actions, _ = agent.predict(raw, deterministic=True)
    loaded = SAC.load(tmp_path / "agent.zip")
    np.testing.assert_array_equal(loaded.predict(raw, deterministic=True)[0], actions)
    one = {key: value[0] for key, value in raw.items()}
    np.testing.assert_allclose(agent.predict(one, deterministic=True)[0], actions[0], atol=1e-5)
    loaded.set_env(agent.env)
    assert loaded.replay_buffer.storage.observation["achieved_goal"].shape[1] == 3 + 2
    before = loaded.observation_encoder.latent.vector
    loaded.learn(60)
    assert loaded.observation_encoder.latent.vector is before, "the model is frozen"


@pytest.mark.slow
def test_images_without_goals_become_latents_too():
    agent = DQN("MlpPolicy", MovingBar(), **{**SETTINGS, "latent": {"name": "pca", "dims": 2}})
    agent.learn(60)
    assert agent.observation_encoder.goal_width is None
    assert agent.replay_buffer.storage.observation["observation"].shape[1:] == (2,)
    action, _ = agent.predict(agent.env.reset())
    assert action.shape == (1,)


@pytest.mark.slow
def test_the_images_of_a_fit_do_not_depend_on_earlier_draws():
    one, other = agent_of(), agent_of()
    other.env.reset()
    for _ in range(7):
        other.env.step([other.action_space.sample() for _ in range(2)])
    (frames, near), again = (random_frames(agent) for agent in (one, other))
    np.testing.assert_array_equal(frames, again[0])
    np.testing.assert_array_equal(near, again[1])
    assert frames.shape == (120, 32, 32, 3)


def test_near_images_are_a_number_of_random_actions_apart():
    agent = agent_of(MAZE, num_envs=3, pretraining={**LITTLE, "stay": 5, "near": 2})
    frames, near = random_frames(agent)
    positions = agent.observation_encoder._image_rule.goal_vector(frames)
    apart = np.linalg.norm(positions[near[:, 0]] - positions[near[:, 1]], axis=1)
    assert 20 < len(near) < 120
    assert apart.max() < 2 * 0.15  # metres: what full speed covers in two steps of 0.1 s
    rng = np.random.default_rng(0)
    assert np.median(np.linalg.norm(positions[rng.permutation(120)] - positions, axis=1)) > 0.5
    assert (np.diff(near, axis=1) == 2 * 3).all()


class RawImageRule(ExactRule):
    """Evaluates images as they are, without `goal_vector`."""


IMAGE = spaces.Box(0, 255, (32, 32, 3), np.uint8)
POSITION = spaces.Box(-1, 1, (2,), np.float32)


def goals(observation, achieved, desired):
    return spaces.Dict(observation=observation, achieved_goal=achieved, desired_goal=desired)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (goals(POSITION, IMAGE, IMAGE), r"found them under \['achieved_goal', 'desired_goal'\]"),
        (spaces.Box(0, 255, (3, 32, 32), np.uint8), "channels last"),
        (spaces.Box(0, 255, (42, 42, 3), np.uint8), "multiple of 4"),
        (
            goals(IMAGE, IMAGE, spaces.Box(0, 255, (48, 48, 3), np.uint8)),
            "images of one size",
        ),
        (goals(IMAGE, IMAGE, IMAGE), "RawImageRule.*`goal_vector`"),
    ],
)
def test_spaces_without_a_latent_model_are_named(space, message):
    with pytest.raises(ValueError, match=message):
        LatentObservationEncoder(
            space, RawImageRule(), VAE(), Pretraining(), np.random.SeedSequence(0), "cpu"
        )


def test_wide_vectors_become_latents_too():
    space = spaces.Box(-1, 1, (9,), np.float32)
    seed = np.random.SeedSequence(0)
    encoder = LatentObservationEncoder(space, None, PCA(dims=2), Pretraining(), seed, "cpu")
    assert encoder.space.shape == (2,)
    assert encoder.encode_observation(np.ones((3, 9), np.float32)).shape == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, "frames = 1 must be a whole number >= 2"),
        ({"steps": 2.5}, "steps = 2.5 must be a whole number >= 1"),
        ({"near": 4, "stay": 3}, "near = 4 must be at most stay = 3"),
        ({"learning_rate": 0}, "learning_rate = 0 must be > 0"),
    ],
)
def test_pretraining_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Pretraining(**options)


def test_an_unknown_option_of_pretraining_is_named():
    with pytest.raises(
        ValueError, match=r"pretraining has no option 'frame'. Did you mean 'frames'"
    ):
        agent_of(pretraining={"frame": 3})


def test_a_latent_goal_rule_has_the_reward_range_of_its_rule():
    rule = LatentGoalRule(ExactRule(terminates=True), 3)
    assert rule.reward_range == (-1.0, 0.0)
    goal = np.array([[9.0, 9, 9, 1], [0, 0, 0, 2]])
    np.testing.assert_array_equal(rule.terminated(goal, goal * [0, 0, 0, 1]), [True, True])


@pytest.mark.slow
def test_rewards_can_come_from_the_latent_model():
    agent = agent_of(reward_source="latent").learn(150)
    threshold = agent.observation_encoder.latent_rule.threshold
    assert 0 < threshold < np.inf
    assert agent.rule is agent.replay_buffer.rule is agent.observation_encoder.latent_rule
    assert agent.adapter.sizes.observation == 4, "the achieved goal is the observation"
    storage = agent.replay_buffer.storage
    assert storage.observation["achieved_goal"].shape[1:] == (4,)
    batch = agent.replay_buffer.sample(200)
    gap = batch.observation["achieved_goal"][:, 1] - batch.desired_goal[:, 0]
    reached = np.linalg.norm(gap, axis=1) < threshold
    np.testing.assert_array_equal(batch.reward[:, 0], reached - 1.0)
    assert not batch.terminated.any()
    assert agent.learner.bounds is not None
    assert (storage.reward[storage.has_action] == -1).any()
    agent.observation_encoder.latent_rule.threshold = 1e9  # from now on all goals are reached
    agent.learn(40, reset_num_timesteps=False)
    newest = (storage.cursor - 2) % storage.slots
    assert storage.reward.reshape(2, -1)[[0, 1], newest].tolist() == [0, 0]


@pytest.mark.slow
def test_the_threshold_is_saved_with_the_agent(tmp_path):
    agent = agent_of(reward_source="latent").learn(60)
    agent.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip", agent.env)
    assert loaded.rule.threshold == agent.rule.threshold


def test_rewards_of_the_latent_model_need_image_goals():
    with pytest.raises(ValueError, match="needs a latent model and goals that are images"):
        DQN("MlpPolicy", MovingBar(), **SETTINGS, latent=PCA(dims=2), reward_source="latent")
    with pytest.raises(ValueError, match='reward_source must be "environment" or "latent", got 3'):
        agent_of(reward_source=3)


def test_latents_are_compared_by_their_distance():
    rule = LatentDistanceRule(threshold=1.0)
    assert isinstance(rule, GoalRule)
    latents, desired = np.zeros((2, 3)), np.array([[0.9, 0, 0], [1.1, 0, 0]])
    np.testing.assert_array_equal(rule.reward(latents, desired), [0, -1])
    np.testing.assert_array_equal(rule.success(latents, desired), [True, False])
    assert not rule.terminated(latents, desired).any()
    assert LatentDistanceRule().success(latents, desired).all(), (
        "without a threshold every goal is reached"
    )


@pytest.mark.slow
def test_goals_that_are_not_images_stay_unchanged():
    def build(env_id, **kwargs):
        return PixelObservation(gym.make(env_id, render_mode="rgb_array"), size=32)

    env = make_vec_env(build, "rlkit/PlanarReach-v0", 2, 0)
    agent = SAC("MultiInputPolicy", env, **{**SETTINGS, "latent": PCA(dims=3)}).learn(60)
    shapes = {key: part.shape[1:] for key, part in agent.replay_buffer.storage.observation.items()}
    assert shapes == {"observation": (3,), "achieved_goal": (2,)}
    assert agent.observation_encoder.goal_width is None
    assert agent.adapter.sizes.observation == 3 + 2
    batch = agent.replay_buffer.sample(50)
    success = agent.rule.success(batch.observation["achieved_goal"][:, 1], batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], success - 1.0)
