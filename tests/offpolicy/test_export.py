"""Policies as functions of torch alone: traced, exported, and equal to `predict`."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small_envs import Recorder
from torch import nn

from rlkit.agents import DQN, MPC, SAC, TD3, TQC
from rlkit.envs.make import make

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
OF_MODULES = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

SMALL = {"batch_size": 8, "learning_starts": 10, "buffer_size": 300, "seed": 0, "device": "cpu"}
IMAGE = spaces.Box(0, 255, (16, 16, 1), np.uint8)
MIXED = spaces.Dict(
    {"a": spaces.Discrete(4, start=1), "b": spaces.MultiDiscrete([2, 3]), "c": IMAGE}
)
WIDE = spaces.Box(np.array([-3, 5], np.float32), np.array([-1, 9], np.float32))


class Convolution(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.ELU(), nn.Flatten())

    def forward(self, images):
        return self.net(images)


CASES = {
    "sac": lambda: SAC("MlpPolicy", Recorder(WIDE), net_arch=[8], **SMALL),
    "td3": lambda: TD3("MlpPolicy", Recorder(spaces.Box(-1, 1, (2, 2))), net_arch=[8], **SMALL),
    "dqn": lambda: DQN("MlpPolicy", Recorder(spaces.Discrete(3, start=-1)), critics=2, **SMALL),
    "several": lambda: DQN("MlpPolicy", Recorder(spaces.MultiDiscrete([2, 3])), **SMALL),
    "goals": lambda: SAC("MultiInputPolicy", make("rlkit/PointMaze-Open-v0"), **SMALL),
    "features": lambda: SAC(
        "MultiInputPolicy",
        make("rlkit/PointMaze-Open-v0"),
        input_features="fourier",
        goal_input="both",
        **SMALL,
    ),
    "learned features": lambda: TQC(
        "MultiInputPolicy",
        make("rlkit/HiddenGoalReach-v0"),
        input_features="learned_fourier",
        fourier_width=8,
        goal_input="relative",
        **SMALL,
    ),
    "mixed": lambda: SAC("MultiInputPolicy", Recorder(observation_space=MIXED), **SMALL),
    "images": lambda: SAC("CnnPolicy", Recorder(observation_space=IMAGE), **SMALL),
    "user's module": lambda: TD3(
        "CnnPolicy",
        Recorder(observation_space=IMAGE),
        policy_kwargs={
            "features_extractor_class": Convolution,
            "share_features_extractor": True,
            "net_arch": [8],
        },
        **SMALL,
    ),
}


class Wrapped(nn.Module):
    """As in SB3's guide; a Dict's parts are arguments in the order of their names."""

    def __init__(self, policy, keys):
        super().__init__()
        self.policy, self.keys = policy, keys

    def forward(self, *observation):
        whole = dict(zip(self.keys, observation, strict=True)) if self.keys else observation[0]
        return self.policy(whole, deterministic=True)


def tensors(agent, observations):
    """Arguments of a wrapped policy for a list of raw observations."""
    space = agent.observation_space
    if not isinstance(space, spaces.Dict):
        return (torch.as_tensor(np.stack(observations)),)
    return tuple(
        torch.as_tensor(np.stack([one[key] for one in observations])) for key in sorted(space)
    )


def in_env(agent, actions):
    is_continuous = isinstance(agent.action_space, spaces.Box)
    return agent.policy.unscale_action(actions) if is_continuous else actions


@pytest.fixture(
    params=[pytest.param(name, marks=OF_MODULES if "module" in name else ()) for name in CASES]
)
def case(request):
    agent = CASES[request.param]().learn(16)
    agent.observation_space.seed(3)
    observations = [agent.observation_space.sample() for _ in range(20)]
    expected = [agent.predict(one, deterministic=True)[0] for one in observations]
    space = agent.observation_space
    keys = sorted(space.spaces) if isinstance(space, spaces.Dict) else None
    return agent, Wrapped(agent.policy, keys).eval(), observations, expected


def matches(agent, found, expected):
    found = in_env(agent, np.asarray(found))
    return np.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_traced_policy_is_predict(case):
    agent, wrapped, observations, expected = case
    traced = torch.jit.trace(wrapped, tensors(agent, observations[:1]))
    traced = torch.jit.freeze(traced)
    found = [traced(*tensors(agent, [one]))[0] for one in observations]
    assert sum(map(matches, [agent] * 20, found, expected)) == 20
    assert matches(agent, traced(*tensors(agent, observations)), expected)  # other batch sizes


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.slow
def test_an_exported_policy_is_predict(case, dynamo, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    agent, wrapped, observations, expected = case
    path = str(tmp_path / "policy.onnx")
    names = wrapped.keys or ["observation"]
    inputs = tensors(agent, observations[:1])
    torch.onnx.export(wrapped, inputs, path, input_names=names, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path)
    found = []
    for one in observations:
        given = zip(names, tensors(agent, [one]), strict=True)
        found.append(session.run(None, {name: value.numpy() for name, value in given})[0][0])
    assert sum(map(matches, [agent] * 20, found, expected)) == 20


def test_the_guides_actor_and_its_file(tmp_path):
    agent = SAC("MlpPolicy", "Pendulum-v1", net_arch=[8], **SMALL)
    x = torch.randn(1, 3)
    traced = torch.jit.trace(Wrapped(agent.policy.actor, None).eval(), x)
    torch.jit.save(torch.jit.optimize_for_inference(torch.jit.freeze(traced)), tmp_path / "a.pt")
    loaded = torch.jit.load(tmp_path / "a.pt")
    torch.testing.assert_close(loaded(x), agent.actor(x, deterministic=True))


def test_critics_give_values_of_actions():
    agent = SAC("MlpPolicy", Recorder(WIDE), net_arch=[8], critics=3, **SMALL).learn(14)
    x, action = torch.randn(5, 3), torch.rand(5, 2) * 2 - 1
    values = agent.critic(x, action)
    assert [tuple(value.shape) for value in values] == [(5, 1)] * 3
    scaled = agent.learner.scaling.observation(agent.learner.scaling.tensors(), x)
    inputs = (x[:, :0], scaled, x[:, :0], action)
    expected = agent.learner.critic(agent.learner.state["critic"], inputs)
    torch.testing.assert_close(torch.stack(values), expected)
    assert not torch.equal(agent.critic_target(x, action)[0], values[0])
    policy_action = agent.actor(x, deterministic=True)
    action.requires_grad_()
    agent.critic(x, action)[0].sum().backward()
    assert policy_action.shape == action.grad.shape


def test_q_networks_give_values_of_all_actions():
    agent = DQN("MlpPolicy", Recorder(spaces.Discrete(3, start=2)), **SMALL).learn(14)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    values = agent.q_net(torch.as_tensor(x))
    assert values.shape == agent.q_net_target(torch.as_tensor(x)).shape == (6, 3)
    expected = agent.predict(x, deterministic=True)[0]
    np.testing.assert_array_equal(values.argmax(1).numpy() + 2, expected)
    np.testing.assert_array_equal(agent.policy(torch.as_tensor(x), deterministic=True), expected)


def test_a_targets_actions_are_those_of_the_target():
    agent = TD3("MlpPolicy", Recorder(), net_arch=[8], tau=1.0, **SMALL).learn(14)
    x = torch.randn(5, 3)
    torch.testing.assert_close(agent.actor_target(x), agent.actor(x, deterministic=True))


def test_a_stochastic_policy_explores():
    agent = SAC("MlpPolicy", Recorder(), net_arch=[8], **SMALL)
    x = torch.randn(5, 3)
    assert not torch.equal(agent.policy(x), agent.policy(x))
    assert agent.policy(x).abs().max() <= 1


def test_what_is_no_function_of_one_observation_is_refused_in_one_sentence():
    agent = SAC("MlpPolicy", Recorder(), net_arch=[8], encoder="gru", **SMALL)
    with pytest.raises(ValueError, match=r"recurrent encoder \(gru\).*use agent.predict"):
        torch.jit.trace(Wrapped(agent.policy, None), torch.randn(1, 3))
    agent = SAC("MlpPolicy", Recorder(observation_space=IMAGE), latent="pca", **SMALL)
    with pytest.raises(ValueError, match="latent model that is fitted beforehand"):
        agent.policy(torch.zeros(1, 16, 16, 1))
    planner = MPC("MultiInputPolicy", make("rlkit/PointMaze-Open-v0"), device="cpu", seed=0)
    with pytest.raises(ValueError, match="MPC plans its actions"):
        planner.policy({})


@OF_MODULES
def test_tracing_leaves_no_trace_in_training():
    found = []
    for is_traced in (True, False):
        agent = CASES["user's module"]().learn(20)
        if is_traced:
            torch.jit.trace(Wrapped(agent.policy, None), torch.zeros(1, 16, 16, 1))
        found.append(agent.learn(20, reset_num_timesteps=False).learner.weights())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])
