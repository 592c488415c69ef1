"""What SB3 users pass as `policy_kwargs`: layers by role, optimisers, features extractors."""

import functools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from resuming import assert_resumes
from small_envs import Bandit, Recorder
from stable_baselines3 import sac as sb3_sac
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from rlkit.agents import DQN, SAC, TD3
from rlkit.envs.make import make
from rlkit.vec.vec_env import make_vec_env

SMALL = {"batch_size": 8, "learning_starts": 10, "buffer_size": 500, "seed": 0, "device": "cpu"}
AGENTS = [SAC, TD3, DQN]


class Features(BaseFeaturesExtractor):
    """As in SB3's documentation: a linear layer and its activation, `features` wide."""

    def __init__(self, observation_space, features=4, activation_fn=nn.ReLU):
        super().__init__(observation_space, features)
        width = spaces.flatdim(observation_space)
        self.net = nn.Sequential(nn.Linear(width, features), activation_fn())
        self.register_buffer("projection", torch.randn(features))

    def forward(self, observations):
        return self.net(observations.flatten(1)) * self.projection


class Images(nn.Module):
    """Reads images as SB3 gives them: channels first, in [0, 1]."""

    def __init__(self, observation_space, most=1.0):
        super().__init__()
        self.most = most
        assert observation_space.shape == (1, 8, 8)
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, images):
        assert images.shape[1:] == (1, 8, 8)
        assert images.max() <= self.most
        return self.net(images)


class ByKey(nn.Module):
    """Reads a Dict with goals."""

    def __init__(self, observation_space):
        super().__init__()
        self.parts = nn.ModuleDict(
            {key: nn.Linear(part.shape[0], 2) for key, part in observation_space.items()}
        )

    def forward(self, observations):
        return torch.cat([self.parts[key](observations[key]) for key in sorted(self.parts)], 1)


class Perceptron(nn.Module):
    """A network of a user's own."""

    def __init__(self, inputs, outputs, width=6):
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Counted(Perceptron):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.norm = nn.BatchNorm1d(inputs, momentum=None)

    def forward(self, x):
        return super().forward(self.norm(x))


class Dropped(Perceptron):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)


def build(algorithm, env=None, policy="MlpPolicy", **options):
    if env is None:
        env = Recorder(spaces.Discrete(3)) if algorithm is DQN else Recorder()
    return algorithm(policy, env, **{**SMALL, **options})


def weights(agent):
    return {name: value.clone() for name, value in agent.learner.weights().items()}


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def shapes(agent, network):
    named = agent.learner.weights().items()
    return [tuple(value.shape) for name, value in named if name.startswith(f"{network}.")]


# Layers and activations


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_layers_by_role(algorithm):
    agent = build(algorithm, policy_kwargs={"net_arch": {"pi": [5], "qf": [7, 6]}}).learn(12)
    assert shapes(agent, "actor")[:2] == [(3, 5), (1, 1, 5)]
    assert shapes(agent, "critic")[:4] == [(5, 14), (2, 1, 7), (2, 7, 6), (2, 1, 6)]
    for wrong in ({"pi": [5]}, {"pi": [5], "vf": [5]}, {"pi": [0], "qf": [3]}, [{"pi": [3]}], 64):
        with pytest.raises(ValueError, match=r"net_arch = .* must be a list of widths"):
            build(algorithm, policy_kwargs={"net_arch": wrong})


@pytest.mark.parametrize("chosen", [nn.Tanh, "elu", "SiLU"])
def test_activations(chosen, tmp_path):
    agent = build(SAC, policy_kwargs={"activation_fn": chosen, "net_arch": [4]}).learn(14)
    x = torch.randn(5, 3)
    kind = chosen if isinstance(chosen, type) else {"elu": nn.ELU, "SiLU": nn.SiLU}[chosen]
    p = agent.learner.weights()
    hidden = kind()(x @ p["actor.0.weight"] + p["actor.0.bias"][0])
    expected = hidden @ p["actor.1.weight"][0] + p["actor.1.bias"][0]
    found = agent.learner.actor(agent.learner.state["actor"], (x[:, :0], x, x[:, :0]))[0]
    torch.testing.assert_close(found, expected)
    agent.save(tmp_path / "agent")
    assert same(SAC.load(tmp_path / "agent", device="cpu"), agent)


def test_activations_are_checked():
    with pytest.raises(ValueError, match=r"unknown activation 'rely'. Did you mean 'relu'"):
        build(SAC, activation="rely")
    for wrong in (nn.PReLU, nn.GLU, nn.Threshold):
        with pytest.raises(ValueError, match=r"activation = .* (must be|cannot be used)"):
            build(SAC, activation=wrong)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match=r"policy_kwargs has no 'activation'. Did you mean 'act"):
        build(SAC, policy_kwargs={"activation": nn.ELU})


def test_policies_are_names_or_sb3s_own_classes():
    for policy in (sb3_sac.MlpPolicy, "MlpPolicy"):
        assert build(SAC, policy=policy, net_arch=[4]).policy.actor is not None

    class Mine(sb3_sac.MlpPolicy):
        pass

    with pytest.raises(ValueError, match=r"policy = Mine is a class of its own.*policy_kwargs"):
        build(SAC, policy=Mine)
    with pytest.raises(ValueError, match=r"Policy MlpPolisy unknown. Did you mean 'MlpPolicy'"):
        build(SAC, policy="MlpPolisy")


# Optimisers


OPTIMISERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "plain sgd": (torch.optim.SGD, {}),
    "rmsprop": (torch.optim.RMSprop, {"eps": 1e-5}),
    "adam with decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "nadam": (torch.optim.NAdam, {}),
    "rprop": (torch.optim.Rprop, {}),
    "adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.1}),
    "numbers of Python": (RMSpropTFLike, {}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_step_as_torch_does(name):
    kind, settings = OPTIMISERS[name]
    kwargs = {"optimizer_class": kind, "optimizer_kwargs": settings, "net_arch": [4]}
    agent = build(TD3, policy_kwargs=kwargs, learning_rate=1e-2)
    learner = agent.learner
    own = learner.state["critic"].clone()
    weight_decay = {"weight_decay": 0.01} if kind is torch.optim.AdamW else {}
    reference = kind([own], lr=1e-2, **settings, **weight_decay)
    rate, generator = torch.tensor(1e-2), torch.Generator().manual_seed(0)
    for _ in range(4):
        grad = torch.randn(own.shape, generator=generator)
        learner.state |= learner.descend(learner.state, "critic", grad, {"learning_rate": rate})
        own.grad = grad
        reference.step()
    torch.testing.assert_close(learner.state["critic"], own, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.slow
def test_a_training_continues_exactly_with_any_optimiser(name, tmp_path):
    kind, settings = OPTIMISERS[name]
    options = {"policy_kwargs": {"optimizer_class": kind, "optimizer_kwargs": settings}}
    setting = (TD3, make, "rlkit/PointMaze-Open-v0", 1, options)
    assert_resumes(tmp_path, *setting, rounds=(44, 25, 6))


def test_torchs_adam_is_the_suites_own():
    agent = build(SAC, policy_kwargs={"optimizer_class": torch.optim.Adam})
    assert (agent.config.optimiser, agent.config.optimiser_kwargs) == ("adam", None)
    kwargs = {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"eps": 1e-5}}
    agent = build(SAC, policy_kwargs=kwargs)
    assert (agent.learner.optimiser.eps, agent.learner.optimiser.weight_decay) == (1e-5, 0.01)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SparseAdam, nn.Linear])
def test_what_cannot_step_one_vector_is_refused(kind):
    with pytest.raises(ValueError, match=r"optimiser = .*cannot step one flat vector"):
        build(SAC, policy_kwargs={"optimizer_class": kind})


def test_the_learning_rate_is_the_agents():
    with pytest.raises(ValueError, match=r"'lr'.*learning_rate"):
        build(
            SAC, policy_kwargs={"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"lr": 1}}
        )
    with pytest.raises(ValueError, match="encoder_lr does not go with optimiser"):
        build(SAC, encoder="gru", encoder_lr=1e-4, optimiser="sgd")
    with pytest.raises(ValueError, match="compile = True goes with adam"):
        build(SAC, compile=True, optimiser="sgd")


# Features extractors


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("algorithm", AGENTS)
def test_features_extractors_learn_and_are_saved(algorithm, share, tmp_path):
    kwargs = {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"features": 5, "activation_fn": nn.Tanh},
        "share_features_extractor": share,
        "net_arch": [4],
    }
    agent = build(algorithm, policy_kwargs=kwargs)
    before = weights(agent)
    agent.learn(40)
    after = weights(agent)
    trained = [name for name in before if not torch.equal(before[name], after[name])]
    assert "critic.features_extractor.net.0.weight" in trained
    assert not any("projection" in name for name in trained)  # a buffer
    own = "actor.features_extractor.net.0.weight"
    assert (own in after) == (algorithm is not DQN and not share)
    agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", device="cpu", policy_kwargs=kwargs)
    assert same(loaded, agent)
    x = agent.observation_space.sample()
    action = agent.predict(x, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(x, deterministic=True)[0], action)


def test_a_file_that_names_a_class_needs_trust(tmp_path):
    kwargs = {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"activation_fn": nn.Tanh},
    }
    agent = build(SAC, policy_kwargs=kwargs)
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"test_policy_kwargs:Features.*trust"):
        SAC.load(tmp_path / "agent", device="cpu")
    assert same(SAC.load(tmp_path / "agent", device="cpu", trust=True), agent)
    assert same(SAC.load(tmp_path / "agent", device="cpu", policy_kwargs=kwargs), agent)


def test_a_local_class_is_saved_and_has_to_be_given_again(tmp_path):
    class Local(Features):
        pass

    kwargs = {"features_extractor_class": Local}
    agent = build(SAC, policy_kwargs=kwargs)
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"Local.*is no package.module:Class"):
        SAC.load(tmp_path / "agent", device="cpu", trust=True)
    custom = {"policy_kwargs": kwargs}  # as SB3's users pass it
    assert same(SAC.load(tmp_path / "agent", device="cpu", custom_objects=custom), agent)


def test_a_shared_extractor_is_the_critics():
    kwargs = {"features_extractor_class": Features, "share_features_extractor": True}
    learner = build(TD3, policy_kwargs={**kwargs, "net_arch": []}).learn(60).learner
    x, none = torch.randn(6, 3), torch.zeros(6, 0)
    p = learner.weights()
    for actor, critic in (("actor", "critic"), ("actor_target", "critic_target")):
        parts = f"{critic}.features_extractor.net.0"
        hidden = (x @ p[f"{parts}.weight"].T + p[f"{parts}.bias"]).relu()
        hidden = hidden * p[f"{critic}.features_extractor.projection"]
        expected = hidden @ p[f"{actor}.0.weight"] + p[f"{actor}.0.bias"][0]
        features = learner.extraction.features(learner.state, actor, (none, x, none))
        found = learner.networks[actor](learner.state[actor], (features, x, none))[0]
        torch.testing.assert_close(found, expected)
    assert torch.equal(
        learner.inputs(x, none)[0],
        learner.extraction.features(learner.state, "actor", (none, x, none)),
    )


@pytest.mark.parametrize(("normalise", "most"), [(True, 1.0), (False, 255.0)])
def test_images_are_as_sb3_gives_them(normalise, most):
    image = spaces.Box(0, 255, (8, 8, 1), np.uint8)
    kwargs = {
        "features_extractor_class": Images,
        "features_extractor_kwargs": {"most": most},
        "normalize_images": normalise,
        "net_arch": [4],
    }
    agent = build(SAC, Recorder(observation_space=image), "CnnPolicy", policy_kwargs=kwargs)
    raw = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 4
    vector = torch.as_tensor(agent.adapter.vectors(raw)[0])
    read = agent.learner.extraction.extractor.read(vector, torch.zeros(1, 0))
    torch.testing.assert_close(read, torch.as_tensor(raw).movedim(-1, 1) / (255 / most))
    agent.learn(20)


def test_goals_are_read_by_key():
    env = make_vec_env(make, "rlkit/PointMaze-Open-v0", 2, 0)
    kwargs = {"features_extractor_class": ByKey, "net_arch": [4]}
    agent = build(SAC, env, "MultiInputPolicy", policy_kwargs=kwargs).learn(40)
    observation = env.reset()
    x, goal = (torch.as_tensor(part) for part in agent.adapter.vectors(observation))
    read = agent.learner.extraction.extractor.read(x, goal)
    assert read.keys() == observation.keys()
    for key, value in observation.items():
        np.testing.assert_array_equal(read[key], value)


def test_sb3s_own_networks_for_images_and_dicts():
    image = spaces.Box(0, 255, (36, 36, 1), np.uint8)
    kwargs = {"features_extractor_kwargs": {"features_dim": 6}, "net_arch": [4]}
    shared = {**kwargs, "share_features_extractor": True}
    agent = build(SAC, Recorder(observation_space=image), "CnnPolicy", policy_kwargs=shared)
    assert agent.learner.extraction.extractor.features == 6
    both = spaces.Dict({"image": image, "vector": spaces.Box(-1, 1, (2,))})
    kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 6}, "net_arch": [4]}
    env = Recorder(observation_space=both)
    agent = build(SAC, env, "MultiInputPolicy", policy_kwargs=kwargs)
    assert agent.learner.extraction.extractor.features == 8
    agent.learn(14)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, DQN])
def test_a_task_is_learned_through_modules(algorithm):
    """Chance earns -0.5 (discrete) or worse than -3; so does ignoring the observation."""
    env = Bandit(discrete=algorithm is DQN)
    kwargs = {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"features": 16},
        "network": {"all": {"name": Perceptron, "width": 32}},
    }
    agent = build(algorithm, env, policy_kwargs=kwargs, learning_rate=3e-3, batch_size=64).learn(
        500
    )
    mean, _ = evaluate_policy(agent, Monitor(env), n_eval_episodes=20)
    assert mean > (-0.01 if algorithm is DQN else -1.0)


# Networks of a user's own


@pytest.mark.parametrize(
    ("algorithm", "options"), [(SAC, {}), (TD3, {}), (DQN, {}), (SAC, {"encoder": "gru"})], ids=str
)
def test_networks_of_modules(algorithm, options, tmp_path):
    network = {"pi": Perceptron, "qf": {"name": Perceptron, "width": 5}}
    agent = build(algorithm, policy_kwargs={"network": network}, **options)
    members = agent.config.critics
    named = agent.learner.weights()
    assert (
        not torch.equal(
            named["critic.0.first.weight"],
            agent.learner.weights()[f"critic.{members - 1}.last.weight"][:1],
        )
        or members == 1
    )
    assert named["critic.0.first.weight"].shape[0] == 5
    before = weights(agent)
    agent.learn(30)
    critic = [name for name in before if name.startswith("critic.")]
    assert not any(torch.equal(before[name], named[name]) for name in critic)
    agent.save(tmp_path / "agent")
    kwargs = {"network": network}
    assert same(algorithm.load(tmp_path / "agent", device="cpu", policy_kwargs=kwargs), agent)


def test_a_module_is_the_function_that_it_is_outside():
    agent = build(SAC, policy_kwargs={"network": {"pi": Perceptron}})
    alone, x = Perceptron(3, 4), torch.randn(5, 3)
    named = agent.learner.weights()
    alone.load_state_dict({name: named[f"actor.0.{name}"] for name in alone.state_dict()})
    found = agent.learner.actor(agent.learner.state["actor"], (x[:, :0], x, x[:, :0]))[0]
    torch.testing.assert_close(found, alone(x))


def test_a_copy_of_a_module_keeps_its_parameters():
    pretrained = Features(spaces.Box(-1, 1, (3,)), 4)
    pretrained.net.requires_grad_(False)
    agent = build(SAC, policy_kwargs={"features_extractor_class": pretrained}).learn(30)
    for network in ("actor", "critic", "critic_target"):
        own = agent.learner.weights()[f"{network}.features_extractor.net.0.weight"]
        assert torch.equal(own, pretrained.net[0].weight)


def test_the_same_seed_gives_the_same_modules_and_leaves_torchs_generator():
    kwargs = {"network": {"all": Perceptron}}
    state = torch.get_rng_state()
    one, other = (build(SAC, policy_kwargs=kwargs, seed=3) for _ in range(2))
    assert same(one, other)
    assert not same(one, build(SAC, policy_kwargs=kwargs, seed=4))
    assert torch.equal(torch.get_rng_state(), torch.get_rng_state())
    assert state.shape == torch.get_rng_state().shape


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Counted, "has a batch norm with momentum=None"),
        (Dropped, "gives random outputs in evaluation mode"),
        (functools.partial(nn.Linear, 7), "cannot read inputs of shape"),
        (functools.partial(nn.Linear, width=7), "fails: TypeError"),
        (lambda inputs, outputs: nn.Linear(inputs, 9), "gives outputs of width 9; they must have"),
        (lambda inputs, outputs: nn.Linear(9, outputs), "cannot read inputs of shape"),
        (lambda inputs, outputs: 3, "is no torch.nn.Module"),
        ("tests:Nothing", "has no class 'Nothing'|cannot be imported"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:20],
)
def test_modules_that_cannot_work_are_refused_in_one_sentence(network, message):
    with pytest.raises(ValueError, match=message) as refused:
        build(SAC, policy_kwargs={"network": {"all": network}})
    assert "\n" not in str(refused.value)


def test_what_does_not_go_together_is_refused():
    modules = {"features_extractor_class": Features}
    with pytest.raises(ValueError, match="features_extractor does not go with encoder"):
        build(SAC, encoder="gru", policy_kwargs=modules)
    with pytest.raises(ValueError, match="compile = True does not go with modules"):
        build(SAC, compile=True, policy_kwargs=modules)
    with pytest.raises(ValueError, match="share_features_extractor = True needs"):
        build(SAC, policy_kwargs={"share_features_extractor": True})
    with pytest.raises(ValueError, match=r"features_extractor_kwargs = .* needs a features_ext"):
        build(SAC, policy_kwargs={"features_extractor_kwargs": {"features_dim": 3}})
