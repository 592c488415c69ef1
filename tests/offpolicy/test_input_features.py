"""Fourier features and relative goals: the same in acting, learning, files and exports."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from random_batches import A, F, G, random_batch, same
from small_envs import Recorder

from rlkit.agents import DQN, SAC, TD3, Sizes
from rlkit.envs.make import make
from rlkit.offpolicy.network_modules import network_inputs

ACHIEVED = 1  # the first of G columns of the observation
OPTIONS = [
    {"input_features": "fourier"},
    {"goal_input": "relative"},
    {"input_features": "fourier", "goal_input": "both", "fourier_frequencies": (1.0, 3.0, 9.0)},
    {"input_features": "learned_fourier", "fourier_width": 6, "fourier_scale": 0.5},
]
RECURRENT = {"encoder": {"name": "gru", "hidden": 8}, "window": 4}
SMALL = {"net_arch": (16, 16), "batch_size": 8}


class OfIntegers(Recorder):
    """Goals that are numbers of places, between which there is no difference."""

    def __init__(self):
        keys = ("achieved_goal", "desired_goal", "observation")
        super().__init__(observation_space=spaces.Dict({key: spaces.Discrete(3) for key in keys}))

    def compute_reward(self, achieved_goal, desired_goal, info):
        return np.float32(achieved_goal == desired_goal) - 1


@pytest.fixture(params=[SAC, TD3, DQN], ids=lambda one: one.__name__)
def algorithm(request):
    return request.param


def new(algorithm, seed=0, **options):
    config = algorithm.learner_class.config_class(**{**SMALL, **options})
    learner = algorithm.learner_class(config, Sizes(F, G, A), seed=seed, achieved=ACHIEVED)
    rng = np.random.default_rng(9)
    learner.observe(rng.normal(1, 2, (50, F)), rng.normal(-1, 0.5, (50, G)))
    return learner


def windows(algorithm, seed=0, rows=4, steps=4):
    batch = random_batch(algorithm, seed, rows, steps)
    batch["previous_action"] = random_batch(algorithm, seed + 100, rows, steps + 1)["action"]
    batch["is_first"] = np.zeros((rows, steps + 1), np.bool_)
    batch["is_first"][:, 0] = True
    return batch


def seen_by_policy(learner, *given, **more):
    """What the acting network reads of `observation` and `goal`."""
    found, policy = [], learner.policy
    learner.policy = lambda inputs, explore: found.append(inputs) or policy(inputs, explore)
    rows = len(given[0])
    learner.act(*given, learner.initial(rows), np.ones(rows, np.bool_), explore=False, **more)
    del learner.policy
    return found[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("recurrent", [{}, {**RECURRENT, "goal_mode": "early"}], ids=["", "gru"])
def test_acting_and_learning_read_the_same(algorithm, options, recurrent):
    learner, batch = new(algorithm, **options, **recurrent), windows(algorithm, steps=1)
    batch["visible"] = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    view = learner.transitions(learner.state, learner.prepare(batch), *learner.networks)
    view = view[learner.acting]
    for moment, t in (("current", 0), ("next", 1)):
        given = batch["observation"][:, t], batch["goal"][:, 0]
        _, x, goal = seen_by_policy(learner, *given, visible=batch["visible"][:, t])
        assert torch.equal(getattr(view, moment)[1], x)
        assert torch.equal(getattr(view, moment)[2], goal)
        assert (goal[batch["visible"][:, t] == 0] == 0).all()
        assert (goal[batch["visible"][:, t] == 1] != 0).any()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_encoder_that_reads_goals_reads_in_windows_what_it_reads_in_acting(algorithm, options):
    learner = new(algorithm, **options, **RECURRENT, goal_mode="early", start="zero")
    batch = windows(algorithm)
    batch["goal"][:] = batch["goal"][:, :1]
    tensors = learner.prepare(batch)
    view = learner.transitions(learner.state, tensors, learner.acting)[learner.acting]
    current, after = (
        part[0].unflatten(0, batch["mask"].shape) for part in (view.current, view.next)
    )
    hidden_state = learner.initial(4)
    found, policy = [], learner.policy
    learner.policy = lambda inputs, explore: found.append(inputs[0]) or policy(inputs, explore)
    for t in range(5):
        hidden_state = learner.acted(hidden_state, batch["previous_action"][:, t])
        is_first, goal = batch["is_first"][:, t], batch["goal"][:, 0]
        x = batch["observation"][:, t]
        _, hidden_state = learner.act(x, goal, hidden_state, is_first, explore=False)
        same_moment = ([current[:, t]] if t < 4 else []) + ([after[:, t - 1]] if t > 0 else [])
        for features in same_moment:
            torch.testing.assert_close(found[t], features, rtol=1e-4, atol=1e-5)


def test_relative_goals_follow_the_observation_that_a_sum_of_steps_continues_from(algorithm):
    learner, batch = new(algorithm, goal_input="relative"), random_batch(algorithm, steps=3)
    first = {name: array[:, :1] for name, array in batch.items() if name != "observation"}
    end = np.array([[1], [2], [3], [1], [2], [3], [2], [1]])
    summed = {**first, "observation": batch["observation"], "bootstrap": end}
    view = learner.transitions(learner.state, learner.prepare(summed), "critic")["critic"]
    deviation = 1 / learner.scaling.weights()["goal.scale"].numpy()
    for moment, t in (("current", 0 * end), ("next", end)):
        x = np.take_along_axis(batch["observation"], t[..., None], axis=1)[:, 0]
        expected = (batch["goal"][:, 0] - x[:, ACHIEVED : ACHIEVED + G]) / deviation
        np.testing.assert_allclose(
            getattr(view, moment)[2], expected.clip(-5, 5), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "recurrent",
    [{}, {**RECURRENT, "goal_mode": "late"}, {**RECURRENT, "goal_mode": "early"}],
    ids=["feed-forward", "late", "early"],
)
def test_learners_train_and_continue_bit_for_bit(algorithm, options, recurrent):
    one, other = (new(algorithm, seed, **options, **recurrent) for seed in (3, 99))
    before = {name: value.clone() for name, value in one.weights().items()}
    for seed in range(3):
        names, values = one.update(windows(algorithm, seed))
        assert torch.isfinite(values).all()
        assert len(names) == len(values)
    assert not same(before, one.weights())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for learner in (one, other):
        learner.observe(*(np.full((5, width), 7.0) for width in (F, G)))
        for seed in range(3, 6):
            learner.update(windows(algorithm, seed))
    assert same(one.state, other.state)


@pytest.mark.parametrize("features", ["fourier", "learned_fourier"])
def test_an_agent_without_them_cannot_load_them(algorithm, features):
    with pytest.raises(ValueError, match=r"shape|belong to another agent"):
        new(algorithm).load_state_dict(new(algorithm, input_features=features).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("features", OPTIONS[2:], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"use_sde": True}, {"encoder_sharing": "joint", **RECURRENT}], ids=str
)
def test_agents_train_save_and_load(features, options, tmp_path):
    more = {"fourier_frequencies": (1.0, 3.0, 9.0), "imitation": 0.2, "learning_starts": 20}
    options = {**SMALL, **features, **options, **more, "seed": 0}
    agent = SAC("MultiInputPolicy", make("rlkit/PointMaze-Open-v0"), device="cpu", **options)
    agent.learn(40)
    agent.save(tmp_path / "agent")
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert loaded.config.fourier_frequencies == (1.0, 3.0, 9.0)
    observation, _ = make("rlkit/PointMaze-Open-v0").reset(seed=1)
    expected = agent.predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_policies_of_torch_read_them_too(options):
    env = make("rlkit/PointMaze-Open-v0")
    settings = {**SMALL, **options, "learning_starts": 20, "seed": 0, "device": "cpu"}
    agent = SAC("MultiInputPolicy", env, **settings).learn(30)
    observation = {name: part[None] for name, part in env.reset(seed=5)[0].items()}
    x, goal = agent.adapter.vectors(observation)
    read = seen_by_policy(agent.learner, x, goal)
    tensors = {name: torch.as_tensor(part) for name, part in observation.items()}
    for one, other in zip(read, network_inputs(agent, tensors, "actor"), strict=True):
        torch.testing.assert_close(one, other)
    action = agent.policy(tensors, deterministic=True)
    expected = agent.predict(observation, deterministic=True)[0]
    np.testing.assert_allclose(agent.policy.unscale_action(action.numpy()), expected, atol=1e-5)
    values = agent.critic(tensors, action)
    assert [tuple(value.shape) for value in values] == [(1, 1)] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"critics": 3, "target_critics": 2, "actor_critics": "mean", "quantiles": 5},
        {"input_features": "learned_fourier", "fourier_width": 6, "use_sde": True},
    ],
    ids=["ensemble", "learned"],
)
def test_an_update_with_every_option_is_one_graph(more):
    learner = new(SAC, **{**OPTIONS[2], "imitation": 0.5, **more})
    batch = random_batch(SAC)
    batch["steps_to_goal"] = np.arange(8, dtype=np.int32)[:, None]
    batch["target_critics"] = np.array([2, 0] if "critics" in more else [0, 1])
    tensors = learner.prepare(batch)
    rest = learner.draw_noise(8), torch.tensor(0.1), 0
    compiled = torch.compile(learner.update_function, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = learner.update_function(learner.state, tensors, *rest)
        found = compiled(learner.state, tensors, *rest)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_features": "sines"}, "input_features = 'sines'"),
        ({"fourier_frequencies": (2.0, 0.0)}, "fourier_frequencies = "),
        ({"fourier_frequencies": 2.0}, "fourier_frequencies = 2.0 must be a list"),
        ({"goal_input": "near"}, "goal_input = 'near'"),
        ({"fourier_width": 7}, "fourier_width = 7 must be even"),
        ({"fourier_scale": 0.0}, "fourier_scale = 0.0 must be > 0"),
        ({"input_features": "learned_fourier", "network": {"qf": "x"}}, "layer of perceptrons"),
        ({"input_features": "fourier", "features_extractor": "combined"}, "features_extractor"),
        ({"goal_input": "both", "features_extractor": "combined"}, "features_extractor"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(algorithm, settings, message):
    with pytest.raises(ValueError, match=message):
        new(algorithm, **settings)


@pytest.mark.parametrize(
    ("env", "more"),
    [
        (Recorder(), {}),
        (make("rlkit/PointMaze-Open-v0"), {"observe_achieved": False}),
        (OfIntegers(), {}),
    ],
    ids=["no goals", "unseen", "integers"],
)
def test_relative_goals_are_refused_where_nothing_can_be_subtracted(env, more):
    has_goals = isinstance(env.observation_space, spaces.Dict)
    policy = "MultiInputPolicy" if has_goals else "MlpPolicy"
    with pytest.raises(ValueError, match=r'goal_input = "relative".*set goal_input'):
        SAC(policy, env, goal_input="relative", **more, **SMALL)
