"""Actions of any shape and type, and observations of wrong shapes."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from resuming import assert_resumes
from small_envs import Recorder
from stable_baselines3.common.noise import NormalActionNoise

from rlkit.agents import DQN, MPC, SAC, TD3
from rlkit.offpolicy.spaces import ActionSpaceError, SpaceAdapter
from rlkit.vec.vec_env import make_vec_env

SMALL = {"net_arch": [8], "batch_size": 8, "learning_starts": 10, "seed": 0, "device": "cpu"}
OBSERVED = spaces.Box(-1, 1, (3,), np.float32)
MATRIX = spaces.Box(
    np.full((2, 3), -2, np.float32), np.arange(1, 7, dtype=np.float32).reshape(2, 3)
)
GRU = {"encoder": {"name": "gru", "hidden": 6}, "window": 4}


@st.composite
def boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8]))
    least = 0 if dtype is np.uint8 else -20
    low = np.array([draw(st.integers(least, 20)) for _ in range(int(np.prod(shape)))])
    width = np.array([draw(st.integers(0, 20)) for _ in range(int(np.prod(shape)))])
    low, high = (bound.reshape(shape).astype(dtype) for bound in (low, low + width))
    return spaces.Box(low, high, dtype=dtype)


@given(boxes(), st.integers(1, 4), st.integers(0, 1000))
def test_box_actions_are_stored_as_vectors_and_given_back_in_their_range(space, count, seed):
    adapter = SpaceAdapter(OBSERVED, space)
    stored = adapter.random_actions(count, np.random.default_rng(seed))
    assert stored.shape == (count, *adapter.stored_action.shape) == (count, adapter.sizes.action)
    given_back = adapter.to_env(stored)
    assert given_back.dtype == space.dtype
    assert given_back.shape == (count, *space.shape)
    assert all(space.contains(action) for action in given_back)
    for number, bound in ((-1, space.low), (1, space.high)):
        corner = adapter.to_env(np.full((1, adapter.sizes.action), number, np.float32))
        np.testing.assert_array_equal(corner[0], bound)


def test_integer_boxes_choose_every_number_about_as_often():
    adapter = SpaceAdapter(OBSERVED, spaces.Box(0, 4, (1,), np.int64))
    actions = adapter.to_env(adapter.random_actions(4000, np.random.default_rng(0)))
    assert (np.bincount(actions.ravel(), minlength=5) > 400).all()


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(-3, 3), st.integers(0, 1000)
)
def test_choices_are_stored_from_zero_and_given_back_from_their_start(nvec, start, seed):
    for space in (
        spaces.MultiDiscrete(nvec, start=[start] * len(nvec)),
        spaces.MultiDiscrete([nvec, nvec]),
        spaces.MultiBinary(len(nvec)),
        spaces.MultiBinary([2, len(nvec)]),
    ):
        adapter = SpaceAdapter(OBSERVED, space)
        stored = adapter.random_actions(6, np.random.default_rng(seed))
        assert stored.min() >= 0
        assert (stored < adapter.sizes.choices).all()
        assert sum(adapter.sizes.choices) == adapter.sizes.action
        assert all(space.contains(action) for action in adapter.to_env(stored))


def test_infinite_bounds_are_named():
    space = spaces.Box(np.array([[-1.0, -np.inf]]), np.array([[1.0, 2.0]]), dtype=np.float64)
    with pytest.raises(ActionSpaceError, match=r"index \(0, 1\) are \[-inf, 2.0\].*finite bounds"):
        SAC("MlpPolicy", Recorder(space))


@pytest.mark.parametrize(
    ("algorithm", "space", "fitting"),
    [
        (SAC, spaces.Discrete(3), "dqn or mpc"),
        (TD3, spaces.MultiDiscrete([2, 2]), "choose dqn"),
        (DQN, MATRIX, "mpc or sac or td3 or tqc"),
        (MPC, spaces.MultiBinary(2), "choose dqn"),
    ],
)
def test_a_refused_action_space_names_the_agents_that_fit(algorithm, space, fitting):
    with pytest.raises(ActionSpaceError, match=f"{algorithm.__name__} supports .*{fitting}"):
        algorithm("MlpPolicy", Recorder(space))


@pytest.mark.parametrize("options", [{}, GRU], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_matrices_of_actions_train_save_and_load(algorithm, options, tmp_path):
    env = Recorder(MATRIX)
    noise = NormalActionNoise(np.zeros(MATRIX.shape), np.full(MATRIX.shape, 0.1))
    agent = algorithm("MlpPolicy", env, action_noise=noise, **SMALL, **options).learn(40)
    assert agent._n_updates > 20
    assert {action.shape for action in env.actions} == {(2, 3)}
    agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", device="cpu")
    x = np.zeros((4, 3), np.float32)
    expected = agent.predict(x, deterministic=True)[0]
    assert expected.shape == (4, 2, 3)
    np.testing.assert_array_equal(loaded.predict(x, deterministic=True)[0], expected)


def test_the_encoder_reads_all_entries_of_the_previous_action():
    agent = SAC("MlpPolicy", Recorder(MATRIX), **SMALL, **GRU).learn(30)
    batch = agent.replay_buffer.sample(8)
    later = ~batch.is_first[:, 1:]
    assert batch.previous_action.shape[2:] == (6,)
    np.testing.assert_array_equal(
        batch.previous_action[:, 1:-1][later[:, :-1]], batch.action[:, :-1][later[:, :-1]]
    )


def build_recorder(env_id, **spaces_of):
    return Recorder(**spaces_of)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "space", "options"),
    [
        (SAC, MATRIX, {}),
        (TD3, MATRIX, GRU),
        (DQN, spaces.MultiDiscrete([2, 3], start=[5, 0]), GRU),
        (DQN, spaces.MultiBinary([2, 2]), {}),
    ],
)
def test_they_resume(tmp_path, algorithm, space, options):
    setting = (algorithm, build_recorder, "recorder", 2, options)
    assert_resumes(tmp_path, *setting, rounds=(35, 20, 12), action_space=space)


class WrongShape(Recorder):
    """Observes a shape that is not the space's, from some step on."""

    def __init__(self, space, wrong, at=0):
        super().__init__(observation_space=space)
        self.wrong, self.at = wrong, at

    def _observe(self, is_bad):
        return self.wrong if self.total >= self.at else super()._observe(is_bad)


TWO = spaces.Box(-1, 1, (2,), np.float32)
WRONG = [
    (TWO, np.zeros(1, np.float32), r"observation has shape \(.*1,\), .*needs \(.*2,\)"),
    (
        spaces.Dict(a=TWO, b=TWO),
        {"a": np.zeros(2, np.float32), "b": np.zeros((1, 2), np.float32)},
        r"observation\['b'\] has shape \(.*1, 2\), .*needs \(.*2,\)",
    ),
    (spaces.Dict(a=TWO, b=TWO), {"a": np.zeros(2, np.float32)}, "observation lacks the key 'b'"),
]


@pytest.mark.parametrize("at", [0, 3, 5], ids=["reset", "step", "last step"])
@pytest.mark.parametrize(("space", "wrong", "message"), WRONG)
def test_wrong_shapes_in_collection_are_errors(space, wrong, message, at):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    agent = SAC(policy, WrongShape(space, wrong, at), **SMALL)
    with pytest.raises(ValueError, match=message.replace("observation", "observation.*", 1)):
        agent.learn(20)
    assert len(agent.replay_buffer) < 6


def wrong_shape(env_id):
    return WrongShape(TWO, np.zeros(1, np.float32), at=3)


@pytest.mark.slow
def test_wrong_shapes_from_worker_processes_are_errors():
    env = make_vec_env(wrong_shape, "wrong", 1, 0, subprocess=True)
    with pytest.raises(ValueError, match=r"observation has shape \(1, 1\), .*needs \(1, 2\)"):
        SAC("MlpPolicy", env, **SMALL).learn(20)
    env.close()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_predict_refuses_wrong_shapes(rows):
    agent = SAC("MultiInputPolicy", Recorder(observation_space=spaces.Dict(a=TWO, b=TWO)), **SMALL)
    with pytest.raises(ValueError, match=r"observation\['b'\] has shape"):
        agent.predict({"a": np.zeros((rows, 2)), "b": np.zeros((rows, 1))})


def test_predict_says_how_to_convert_observations_in_the_environments_own_form():
    pair = spaces.Tuple([TWO, spaces.Discrete(2)])
    agent = SAC("MultiInputPolicy", Recorder(observation_space=pair), **SMALL)
    with pytest.raises(ValueError, match=r"is a tuple, .*'0', '1'.*rlkit.goals.SimpleSpaces"):
        agent.predict((np.zeros(2), 1))
    text = spaces.Dict(hand=spaces.Dict(grip=TWO), mission=spaces.Text(3))
    agent = SAC("MultiInputPolicy", Recorder(observation_space=text), **SMALL)
    with pytest.raises(ValueError, match=r"lacks the key 'hand.grip'.*rlkit.goals.SimpleSpaces"):
        agent.predict({"hand": {"grip": np.zeros(2)}, "mission": "go"})
    with pytest.raises(ValueError, match=r"'mission'\] is a str, .*rlkit.goals.SimpleSpaces"):
        agent.predict({"hand.grip": np.zeros(2), "mission": "go"})


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("options", [{}, GRU], ids=["feed-forward", "recurrent"])
def test_one_component_is_plain_dqn_byte_for_byte(options, double):
    def trained(space):
        env = Recorder(space)
        options_of_both = {"critics": 2, "double": double, "exploration_fraction": 0.9}
        agent = DQN("MlpPolicy", env, **SMALL, **options, **options_of_both).learn(50)
        return agent, [int(np.ravel(action)[0]) for action in env.actions]

    (plain, taken), (factored, also_taken) = map(
        trained, (spaces.Discrete(4), spaces.MultiDiscrete([4]))
    )
    assert taken == also_taken
    mine, theirs = plain.learner.state, factored.learner.state
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_value_of_an_action_is_the_mean_over_its_components():
    agent = DQN("MlpPolicy", Recorder(spaces.MultiDiscrete([2, 3])), **SMALL)
    values = torch.tensor([[1.0, 5.0, 2.0, 0.0, 9.0]])
    assert agent.learner.best(values).tolist() == [[1, 2]]
    assert agent.learner.value_of(torch.tensor([[0, 0]]), values).tolist() == [1.5]
    joint = [
        [agent.learner.value_of(torch.tensor([[i, j]]), values) for j in range(3)] for i in (0, 1)
    ]
    assert max(max(row) for row in joint) == agent.learner.value_of(torch.tensor([[1, 2]]), values)


class Copy(gym.Env):
    """One reward for each component of the action that equals the observation's."""

    def __init__(self, nvec=(4, 4, 4)):
        self.observation_space = spaces.MultiDiscrete(nvec)
        self.action_space = spaces.MultiDiscrete(nvec)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown, self.time = self.np_random.integers(0, self.action_space.nvec), 0
        return self.shown, {}

    def step(self, action):
        reward = float(np.mean(action == self.shown))
        self.shown, self.time = self.np_random.integers(0, self.action_space.nvec), self.time + 1
        return self.shown, reward, False, self.time == 20, {}


def share_copied(agent):
    observed = np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T
    return (agent.predict(observed, deterministic=True)[0] == observed).mean()


@pytest.mark.slow
def test_factored_heads_learn_to_copy():
    """A control that learns nothing copies a quarter of the components by chance."""
    options = {**SMALL, "net_arch": [32], "batch_size": 64, "gamma": 0.0, "learning_rate": 1e-2}
    agent = DQN("MlpPolicy", Copy(), **options)
    assert share_copied(agent) < 0.6
    assert share_copied(agent.learn(600)) > 0.97
