"""A latent model that learns together with the agent."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from resuming import assert_resumes
from test_observation_encoder import REACH, MovingBar

import rlkit.envs  # noqa: F401  registers them
from rlkit.agents import DQN, SAC, TD3, Sizes
from rlkit.envs.make import make
from rlkit.envs.wrappers.pixel_observation import PixelObservation
from rlkit.latents import PCA, VAE, Autoencoder, Denoising
from rlkit.latents.joint import JointLatent
from rlkit.offpolicy.diagnostics import diagnose
from rlkit.offpolicy.transitions import Transitions, View
from rlkit.vec.vec_env import make_vec_env

ALGORITHMS = pytest.mark.parametrize("algorithm", [SAC, TD3, DQN])
NETWORK = {"dims": 3, "channels": (4, 4, 4), "hidden": (16,)}
MODEL = Autoencoder(**NETWORK).with_shape((32, 32, 1))
TABLE = {"name": "autoencoder", **NETWORK}
GRU = {"encoder": {"name": "gru", "hidden": 5}, "goal_mode": "late"}
A, IMAGE = 2, 32 * 32
SETTINGS = {
    "seed": 0,
    "net_arch": (16,),
    "batch_size": 8,
    "learning_starts": 16,
    "buffer_size": 400,
    "joint": True,
    "latent": TABLE,
}


def new(algorithm, reconstruction=0.01, **options):
    if algorithm is TD3:
        options = {"policy_delay": 1, **options}
    settings = {"net_arch": (16,), "start": "zero", "joint": True, **options}
    config = algorithm.learner_class.config_class(**settings)
    joint = JointLatent(
        MODEL,
        start=2,
        of_goals=True,
        one_goal=config.goal_mode == "early",
        burn_in=config.burn_in,
        reconstruction=reconstruction,
    )
    return algorithm.learner_class(config, Sizes(2 + IMAGE, IMAGE, A), seed=0, joint=joint)


def random_batch(algorithm, rows=6, steps=1, seed=0):
    """Windows whose observations are two numbers and a image; goals are one image each."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (rows, steps, A)).astype(np.float32)
    if algorithm is DQN:
        action = rng.integers(0, A, (rows, steps))
    length = steps + 1
    batch = {
        "observation": rng.random((rows, length, 2 + IMAGE), np.float32),
        "goal": np.repeat(rng.random((rows, 1, IMAGE), np.float32), steps, axis=1),
        "action": action,
        "reward": rng.normal(size=(rows, steps)).astype(np.float32),
        "discount": np.full((rows, steps), 0.9, np.float32),
        "mask": np.ones((rows, steps), np.float32),
        "is_first": np.zeros((rows, length), np.bool_),
        "previous_action": np.concatenate([action[:, :1], action], axis=1),
    }
    batch["mask"][0, 1:] = 0
    return batch


def agent_of(env_id=REACH, algorithm=SAC, **options):
    env = make_vec_env(make, env_id, 2, 0, size=32)
    return algorithm("MultiInputPolicy", env, **{**SETTINGS, **options})


def latent_gradient(learner):
    """What the first step of Adam was made with."""
    return learner.state["latent.m"] / 0.1


def networks_of(learner):
    return [*learner.networks, *learner.targets]


def critic_loss(learner, algorithm, rows):
    """The critic's loss at its parameters, with the noise that the next update draws."""
    state = learner.generator.get_state()
    with torch.no_grad():
        noise = learner.draw_noise(len(rows.reward))
        rest = {
            SAC: lambda: (learner.state["log_ent_coef"].exp(), noise[0]),
            TD3: lambda: (noise,),
            DQN: tuple,
        }[algorithm]()
        target = learner._target(learner.state, rows, *rest)
    learner.generator.set_state(state)
    return learner.critic_loss(rows.critic.parameters, rows, target)[0]


@ALGORITHMS
@pytest.mark.parametrize("weight", [0.0, 0.01])
def test_the_gradient_is_that_of_one_graph_with_the_encoder_inside_the_loss(algorithm, weight):
    learner = new(algorithm, weight)
    batch = random_batch(algorithm)
    x, goal = torch.tensor(batch["observation"]), torch.tensor(batch["goal"])
    vector = learner.state["latent"].clone().requires_grad_()

    def encode(images):
        return MODEL.encode(vector, images.reshape(-1, 32, 32, 1))[0]

    z, goals = encode(x[:, 0, 2:]), encode(goal[:, 0])
    after = torch.cat([x[:, 1, :2], encode(x[:, 1, 2:]).detach()], 1)
    current = (x[:, 0, :0], torch.cat([x[:, 0, :2], z], 1), goals)
    later = (x[:, 0, :0], after, goals.detach())
    rows = Transitions(
        {name: View(learner.state[name], current, later) for name in networks_of(learner)},
        **{name: torch.tensor(batch[name][:, 0]) for name in ("action", "reward", "discount")},
        weight=torch.full((6,), 1 / 6),
    )
    loss = critic_loss(learner, algorithm, rows)
    error = (MODEL.decode(vector, z) - x[:, 0, 2:].reshape(-1, 32, 32, 1)).square().sum() / 6
    (expected,) = torch.autograd.grad(loss + weight * error, vector)

    names, values = learner.update(batch)
    torch.testing.assert_close(latent_gradient(learner), expected, rtol=1e-3, atol=1e-6)
    metrics = dict(zip(names, values.tolist(), strict=True))
    assert metrics["latent_grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-3)
    assert ("reconstruction" in metrics) == (weight > 0)
    if weight > 0:
        assert metrics["reconstruction"] == pytest.approx(error.item(), rel=1e-4)


@ALGORITHMS
@pytest.mark.parametrize(
    "options",
    [GRU, {**GRU, "burn_in": 2}, {**GRU, "goal_mode": "early"}],
    ids=["late", "burn-in", "early"],
)
def test_the_gradient_through_a_recurrent_encoder_is_that_of_one_graph(algorithm, options):
    learner = new(algorithm, 0.0, **options)
    batch = random_batch(algorithm, steps=6)
    tensors = learner._tensors(batch)
    vector = learner.state["latent"].clone().requires_grad_()

    def encode(images):
        z = MODEL.encode(vector, images.reshape(-1, 32, 32, 1))[0]
        return z.reshape(*images.shape[:2], -1)

    x = tensors["observation"]
    encoded = {**tensors, "goal": encode(tensors["goal"])}
    encoded["observation"] = torch.cat([x[..., :2], encode(x[..., 2:])], dim=-1)
    rows = learner.transitions(learner.state, encoded, *networks_of(learner))
    loss = critic_loss(learner, algorithm, rows)
    (expected,) = torch.autograd.grad(loss, vector)
    learner.update(batch)
    assert float(expected.norm()) > 1e-4
    torch.testing.assert_close(latent_gradient(learner), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("algorithm", [SAC, TD3])
@pytest.mark.parametrize("options", [{}, GRU, {**GRU, "encoder_sharing": "joint"}])
def test_the_actors_loss_never_changes_the_encoder(algorithm, options, monkeypatch):
    """Planted: a critic's loss that is zero leaves the actor's as the only pull there is."""
    batch = random_batch(algorithm, steps=4)
    moved = {}
    for share in (0.0, 1.0):
        learner = new(algorithm, 0.0, **options)
        own = learner.critic_loss

        def shared(*args, own=own, share=share):
            value, metrics = own(*args)
            return share * value, metrics

        monkeypatch.setattr(learner, "critic_loss", shared)
        before = {name: learner.state[name].clone() for name in ("latent", "actor")}
        learner.update(batch)
        moved[share] = [not learner.state[name].equal(value) for name, value in before.items()]
    assert moved == {0.0: [False, True], 1.0: [True, True]}


@ALGORITHMS
def test_without_reconstruction_the_decoder_is_left_alone(algorithm):
    changed = {}
    for weight in (0.0, 1.0):
        learner = new(algorithm, weight)
        before = {name: view.clone() for name, view in learner.weights().items()}
        for seed in range(3):
            learner.update(random_batch(algorithm, seed=seed))
        changed[weight] = {
            name.split(".")[1]
            for name, view in learner.weights().items()
            if name.startswith("latent.") and not view.equal(before[name])
        }
    assert changed == {0.0: {"encoder"}, 1.0: {"encoder", "decoder"}}


@pytest.mark.parametrize("options", [GRU, {**GRU, "burn_in": 2}, {**GRU, "goal_mode": "early"}])
def test_learning_sees_what_acting_sees(options):
    learner = new(SAC, **options)
    tensors = learner._tensors(random_batch(SAC, steps=5))
    one = learner.joint.encode(learner.state, tensors)
    other = learner.joint.encode_to_learn(learner.state, tensors)
    torch.testing.assert_close(one["observation"], other["observation"].detach())
    assert one["goal"].shape == other["goal"].shape == (6, 5, 3)
    torch.testing.assert_close(one["goal"], other["goal"].detach())
    image = tensors["observation"][2, 3, 2:].reshape(1, 32, 32, 1)
    z = MODEL.encode(learner.state["latent"], image)[0][0]
    torch.testing.assert_close(
        one["observation"][2, 3], torch.cat([tensors["observation"][2, 3, :2], z])
    )


@pytest.mark.slow
def test_images_are_stored_once_and_rewarded_by_their_rule():
    agent = agent_of(replay={"hindsight": "future"}).learn(150)
    storage = agent.replay_buffer.storage
    for column in storage.observation.values():
        assert (column.shape[1:], column.dtype) == ((32, 32, 3), np.uint8)
    assert storage.observation["observation"] is storage.observation["achieved_goal"]
    assert agent.learner.sizes == Sizes(3, 3, 2)
    assert agent.observation_encoder.latent is None
    batch = agent.replay_buffer.sample(200)
    achieved = batch.observation["achieved_goal"][:, 1]
    success = agent.rule.success(achieved, batch.desired_goal[:, 0])
    np.testing.assert_array_equal(batch.reward[:, 0], success - 1.0)
    goals, _ = agent.goal_outcomes
    assert goals.shape == (2, 2), "places, of the episodes that have ended"
    assert "latent.encoder.convolution.0.weight" in agent.learner.weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (SAC, {}),
        (TD3, {"reconstruction": 0.0}),
        (SAC, {"encoder": {"name": "gru", "hidden": 5}, "start": "stored", "window": 5}),
    ],
)
def test_resume_is_exact(tmp_path, algorithm, options):
    chosen = {"joint": True, "latent": TABLE, "batch_size": 4, "buffer_size": 200}
    chosen |= {"learning_starts": 12, **options}

    rounds = (30, 20, 12)
    agent = assert_resumes(tmp_path, algorithm, make, REACH, 2, chosen, rounds=rounds, size=32)
    assert float(agent.learner.state["latent.v"].sum()) > 0


@pytest.mark.slow
def test_images_without_goals_are_encoded_and_resumed(tmp_path):
    chosen = {"joint": True, "latent": TABLE, "batch_size": 4}
    chosen |= {"learning_starts": 12, "buffer_size": 200}
    agent = assert_resumes(tmp_path, DQN, lambda _: MovingBar(), "", 2, chosen, rounds=(30, 20, 12))
    assert agent.learner.sizes == Sizes(3, 0, 3)


@pytest.mark.slow
def test_goals_that_are_no_images_stay_beside_the_latent():
    def build(_):
        return PixelObservation(make("rlkit/PlanarReach-v0", render_mode="rgb_array"), size=32)

    env = make_vec_env(build, "", 2, 0)
    agent = SAC("MultiInputPolicy", env, **SETTINGS).learn(60)
    assert agent.learner.sizes == Sizes(3 + 2, 2, 2)
    batch = agent.replay_buffer.sample(4)
    prepared = agent.learner.prepare(agent.adapter.batch(batch))["observation"]
    images = torch.tensor(batch.observation["observation"])
    model, vector = agent.learner.joint.model, agent.learner.state["latent"]
    np.testing.assert_array_equal(prepared[..., :2], batch.observation["achieved_goal"])
    torch.testing.assert_close(prepared[:, 1, 2:], model.encode(vector, images[:, 1])[0])


@pytest.mark.slow
def test_features_and_relative_goals_are_of_latents_too():
    def build(_):
        return PixelObservation(make("rlkit/PlanarReach-v0", render_mode="rgb_array"), size=32)

    read = {"input_features": "fourier", "fourier_frequencies": (2.0,), "goal_input": "both"}
    agent = SAC("MultiInputPolicy", make_vec_env(build, "", 2, 0), **SETTINGS, **read)
    assert agent.learner.sizes == Sizes(3 * (3 + 2), 3 * 2 * 2, 2)
    before = agent.learner.state["latent"].clone()
    agent.learn(60)
    assert not agent.learner.state["latent"].equal(before)
    learner = agent.learner
    prepared = learner.prepare(agent.adapter.batch(agent.replay_buffer.sample(4)))
    rows = learner.transitions(learner.state, prepared, "critic")
    x, goal = prepared["observation"][:, 0], prepared["goal"][:, 0]
    both = torch.cat([goal, goal - x[:, :2]], dim=-1)
    for raw, found in ((x, rows.critic.current[1]), (both, rows.critic.current[2])):
        expected = torch.cat([raw, (2 * raw).sin(), (2 * raw).cos()], dim=-1)
        torch.testing.assert_close(found, expected)


def test_goals_that_are_images_cannot_be_relative():
    with pytest.raises(ValueError, match=r'goal_input = "relative".*not images'):
        agent_of(goal_input="relative")


@pytest.mark.slow
def test_a_saved_agent_acts_as_before_with_and_without_environments(tmp_path):
    agent = agent_of().learn(60)
    agent.save(tmp_path / "agent.zip")
    raw = agent.env.reset()
    actions, _ = agent.predict(raw, deterministic=True)
    loaded = SAC.load(tmp_path / "agent.zip")
    np.testing.assert_array_equal(loaded.predict(raw, deterministic=True)[0], actions)
    loaded.set_env(agent.env)
    before = loaded.learner.state["latent"].clone()
    loaded.learn(60)
    assert not loaded.learner.state["latent"].equal(before)


@pytest.mark.slow
def test_recurrent_encoders_are_diagnosed_through_latents():
    options = {"encoder": {"name": "gru", "hidden": 5}, "start": "stored", "window": 5}
    found = diagnose(agent_of(**options).learn(60))
    assert found.keys() >= {"recurrent/context_actor", "recurrent/staleness_critic"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"latent": None},
            'joint = True needs a latent model to train; set latent = "autoencoder"',
        ),
        ({"latent": VAE()}, r"latent = \{'name': 'vae'.*\} is not; set latent = \"autoencoder\""),
        ({"latent": PCA()}, "an autoencoder without noise"),
        ({"latent": Denoising()}, "an autoencoder without noise"),
        ({"latent": Autoencoder(noise=0.1)}, "an autoencoder without noise"),
        ({"reward_source": "latent"}, 'set reward_source = "environment", or joint = False'),
        ({"compile": True}, "compile = True does not go with joint = True"),
        ({"reconstruction": -1.0}, "reconstruction = -1.0 must be >= 0"),
        ({"joint": "yes"}, "joint = 'yes' must be true or false"),
    ],
)
def test_what_does_not_go_with_joint_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        agent_of(**options)


def test_wide_vectors_are_not_trained_together():
    class Wide(gym.Env):
        observation_space = spaces.Box(-1, 1, (9,), np.float32)
        action_space = spaces.Discrete(2)

    with pytest.raises(ValueError, match=r"needs images, and observations have shape \(9,\)"):
        DQN("MlpPolicy", Wide(), **SETTINGS)


def squares(rng, count):
    """Noise, and on it a square to the left or to the right: where says which action pays."""
    x = 0.5 * rng.random((count, 2, 32, 32), np.float32)
    side, row = rng.integers(0, 2, count), rng.integers(0, 26, count)
    for image, where, top in zip(x[:, 0], side, row, strict=True):
        left = 4 + 18 * where
        image[top : top + 6, left : left + 6] = 1.0
    return x.reshape(count, 2, IMAGE), side


@pytest.mark.slow
def test_the_critic_alone_trains_the_encoder():
    """A latent of one number: an untrained encoder mixes everything in it."""
    right = {}
    model = Autoencoder(dims=1, channels=(8, 8, 8), hidden=(16,)).with_shape((32, 32, 1))
    for trained in (True, False):
        config = DQN.learner_class.config_class(net_arch=(16,), joint=True, learning_rate=3e-3)
        joint = JointLatent(model, start=0, of_goals=False, reconstruction=0.0)
        learner = DQN.learner_class(config, Sizes(IMAGE, 0, 2), seed=0, joint=joint)
        frozen, rng = learner.state["latent"].clone(), np.random.default_rng(0)
        for _ in range(250):
            x, side = squares(rng, 32)
            action = rng.integers(0, 2, (32, 1))
            ones = np.ones((32, 1), np.float32)
            reward = (action == side[:, None]).astype(np.float32)
            nothing = {"goal": np.zeros((32, 1, 0), np.float32), "discount": 0 * ones}
            batch = {"observation": x, "action": action, "reward": reward, "mask": ones}
            learner.update({**batch, **nothing})
            if not trained:
                learner.state["latent"].copy_(frozen)
        x, side = squares(rng, 400)
        first = np.ones(400, np.bool_)
        goal = np.zeros((400, 0), np.float32)
        action, _ = learner.act(x[:, 0], goal, (), first, explore=False)
        right[trained] = float((action == side).mean())
    assert right[True] > 0.95
    assert right[False] < 0.8
