"""The conversion of spaces that agents do not hold, of any nesting."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from small_envs import Recorder

from rlkit.goals import DistanceRule, GoalWrapper, ObservationLayout, SimpleSpaces, simplify
from rlkit.goals.nested_spaces import GoalVector
from rlkit.goals.simple_spaces import is_simple
from rlkit.goals.text import TextEncoding, encoding_of

NUMBERS = [
    spaces.Box(-1, 1, (2, 3), np.float32),
    spaces.Box(-2, 5, (2,), np.float64),
    spaces.Box(0, 255, (2, 2, 3), np.uint8),
    spaces.Box(-3, 3, (), np.int64),
    spaces.Discrete(3),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([2, 3], start=[5, -1]),
    spaces.MultiDiscrete([[2, 3], [4, 1]]),
    spaces.MultiBinary([2, 2]),
]
TEXTS = [spaces.Text(4, charset="abz"), spaces.Text(3)]


def nested(leaves):
    inner = st.sampled_from(leaves)
    return st.recursive(
        inner,
        lambda part: (
            st.lists(part, min_size=1, max_size=3).map(spaces.Tuple)
            | st.dictionaries(st.sampled_from("abcd"), part, min_size=1, max_size=3).map(
                spaces.Dict
            )
        ),
        max_leaves=6,
    )


class Sampler(Recorder):
    """Keeps the last observation in its own form."""

    def _observe(self, is_bad):
        self.last = super()._observe(is_bad)
        return self.last


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return np.array_equal(one, other) and np.shape(one) == np.shape(other)


# Gymnasium's own samples of a Box without axes are no arrays.
@pytest.mark.filterwarnings("ignore:.*Casting input x")
@given(nested(NUMBERS + TEXTS), st.integers(0, 1000))
def test_converted_observations_lie_in_the_converted_space_and_tell_all(space, seed):
    env = simplify(Sampler(observation_space=space))
    assert is_simple(env.observation_space)
    seen = []
    for i in range(4):
        observation, _ = env.reset(seed=seed + i)
        assert env.observation_space.contains(observation)
        seen.append((env.unwrapped.last, observation))
    for raw, converted in seen:
        for other, also in seen:
            assert equal(raw, other) == equal(converted, also)
    layout = ObservationLayout.of(env.observation_space)
    assert list(layout.slices) == sorted(layout.slices)
    again = ObservationLayout.of(simplify(Sampler(observation_space=space)).observation_space)
    assert layout.slices == again.slices


@given(nested(NUMBERS), st.integers(0, 1000))
def test_goals_come_back_from_their_vectors_single_and_batched(space, seed):
    goal = GoalVector(space)
    space.seed(seed)
    samples = [space.sample() for _ in range(3)]
    vectors = np.stack([goal.join(sample) for sample in samples])
    assert all(goal.box.contains(vector) for vector in vectors)
    for sample, vector in zip(samples, vectors, strict=True):
        assert equal(goal.split(vector), sample)
    batch = goal.split(vectors.reshape(3, 1, -1))
    for i, sample in enumerate(samples):
        assert equal(pick(batch, i), sample)


def pick(batch, i):
    if isinstance(batch, dict):
        return {key: pick(part, i) for key, part in batch.items()}
    return tuple(pick(part, i) for part in batch) if isinstance(batch, tuple) else batch[i, 0]


BOXES = [space for space in NUMBERS if isinstance(space, spaces.Box)]
CHOICES = [space for space in NUMBERS if not isinstance(space, spaces.Box)]


@pytest.mark.parametrize(
    ("leaves", "joined"), [(BOXES, spaces.Box), (CHOICES, spaces.MultiDiscrete)]
)
@settings(max_examples=40)
@given(st.data())
def test_actions_of_several_parts_reach_the_environment_in_its_own_form(leaves, joined, data):
    drawn = nested(leaves).filter(lambda space: isinstance(space, spaces.Dict | spaces.Tuple))
    space = data.draw(drawn)
    env = simplify(Recorder(space))
    env.reset()
    assert isinstance(env.action_space, joined)
    env.action_space.seed(data.draw(st.integers(0, 100)))
    for _ in range(3):
        env.step(env.action_space.sample())  # the environment asserts that it contains the action
    if joined is spaces.Box:
        for bound in (env.action_space.low, env.action_space.high):
            env.step(bound)
    assert len(env.unwrapped.actions) >= 3


def test_simple_spaces_are_left_alone():
    flat = spaces.Dict(b=spaces.Discrete(2), a=spaces.Box(-1, 1, (2, 2)))
    for space in (*NUMBERS, flat):
        env = Recorder(observation_space=space)
        assert simplify(env) is env


def test_names_are_paths_and_columns_are_sorted():
    space = spaces.Dict(
        z=spaces.Discrete(2),
        image=spaces.Box(0, 255, (2, 2, 1), np.uint8),
        inner=spaces.Dict(b=spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (1,))])),
    )
    found = simplify(Sampler(observation_space=space)).observation_space
    assert list(found.spaces) == ["image", "inner.b.0", "inner.b.1", "z"]
    clash = spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))})
    with pytest.raises(ValueError, match=r"two parts .* called 'a.b'"):
        simplify(Sampler(observation_space=clash))


@pytest.mark.parametrize("feature", [NUMBERS[0], *NUMBERS[4:8]], ids=str)
@pytest.mark.parametrize("stack", [False, True])
def test_sequences_are_padded_to_a_stated_length(feature, stack):
    space = spaces.Dict(seen=spaces.Sequence(feature, stack=stack), x=spaces.Discrete(2))
    raw = Sampler(observation_space=space)
    with pytest.raises(ValueError, match=r"'seen' is a Sequence.*SimpleSpaces\(env, sequence_leng"):
        simplify(raw)
    env = SimpleSpaces(raw, sequence_length=30)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        count = observation["seen.length"]
        assert count == len(raw.last["seen"])
        for row, entry in zip(observation["seen"], raw.last["seen"], strict=False):
            np.testing.assert_array_equal(row, entry)


def test_longer_sequences_are_errors():
    space = spaces.Sequence(spaces.Discrete(2))
    env = SimpleSpaces(Sampler(observation_space=space), sequence_length=1)
    env.unwrapped._observe = lambda is_bad: (0, 1, 1)
    with pytest.raises(ValueError, match="has 3 entries: raise sequence_length = 1"):
        env.reset()


GRAPH = spaces.Graph(spaces.Box(-1, 1, (2,)), None)
ONE_OF = spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (2,))])


@pytest.mark.parametrize("space", [GRAPH, ONE_OF, spaces.Sequence(spaces.Text(3))])
def test_what_has_no_fixed_size_is_refused_in_one_sentence(space):
    for whole in (space, spaces.Dict(x=space)):
        with pytest.raises(ValueError, match=r"the observation.*gymnasium.ObservationWrapper"):
            simplify(Sampler(observation_space=whole))
    with pytest.raises(ValueError, match=r"no agent supports: .*gymnasium.ActionWrapper"):
        simplify(Recorder(space))


def test_actions_that_mix_numbers_and_choices_are_refused():
    space = spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2,))])
    with pytest.raises(ValueError, match=r"mixes numbers and choices.*gymnasium.ActionWrapper"):
        simplify(Recorder(space))


def test_a_goal_of_text_is_refused():
    parts = spaces.Dict(a=spaces.Text(3))
    space = spaces.Dict(observation=NUMBERS[0], achieved_goal=parts, desired_goal=parts)
    with pytest.raises(ValueError, match=r"the goal's part 'a' is Text.*GoalWrapper"):
        simplify(Sampler(observation_space=space))


class Tasks(gym.Env):
    """Goals are dicts of arrays; the reward counts the tasks that are done, one goal at a time."""

    def __init__(self):
        goal = spaces.Dict(door=spaces.Box(-2, 2, (1,)), lid=spaces.Box(-2, 2, (2,), np.float64))
        inner = spaces.Dict(x=spaces.Box(-1, 1, (2,)), held=spaces.Discrete(2))
        self.observation_space = spaces.Dict(
            observation=inner, achieved_goal=goal, desired_goal=goal
        )
        self.action_space = spaces.Box(-1, 1, (3,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        observation = self.observation_space.sample()
        goals = observation["achieved_goal"], observation["desired_goal"]
        return observation, self.compute_reward(*goals, {}), False, False, {}

    def compute_reward(self, achieved, desired, info):
        assert achieved["lid"].shape == (2,)  # as FrankaKitchen, it takes no batch
        return float(sum(np.linalg.norm(achieved[k] - desired[k]) < 1 for k in ("door", "lid")))

    def compute_terminated(self, achieved, desired, info):
        raise NotImplementedError


def test_nested_goals_become_vectors_and_the_environments_reward_gets_its_own():
    env = simplify(Tasks())
    assert env.observation_space["achieved_goal"].shape == (3,)
    assert env.observation_space["observation"].shape == (4,)
    pairs, rewards = [], []
    env.reset(seed=0)
    for _ in range(20):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        pairs.append((observation["achieved_goal"], observation["desired_goal"]))
        rewards.append(reward)
        assert env.compute_reward(*pairs[-1], {}) == reward
    achieved, desired = map(np.array, zip(*pairs, strict=True))
    np.testing.assert_array_equal(env.compute_reward(achieved, desired, {}), rewards)
    np.testing.assert_array_equal(env.compute_reward(achieved, desired, [{}] * 20), rewards)
    assert len(set(rewards)) == 3
    assert not env.compute_terminated(achieved, desired, {}).any()
    assert not hasattr(env, "compute_truncated")


def test_goals_given_by_a_wrapper_stay_as_they_are():
    space = spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3)])
    env = GoalWrapper(
        Sampler(observation_space=space),
        achieved=lambda observation: observation[0],
        rule=DistanceRule(0.1),
        goal_space=spaces.Box(-1, 1, (2,)),
    )
    converted = simplify(env)
    assert converted.observation_space["observation"].shape == (5,)
    observation, _ = converted.reset(seed=0)
    assert converted.observation_space.contains(observation)
    assert converted.get_wrapper_attr("rule") is env.rule


class Missions(spaces.Space):
    """Lists its sentences, as MiniGrid's space of missions does."""

    def __init__(self, is_open=False):
        super().__init__(None, str)
        self.ordered_placeholders = [["red", "green"], ["ball", "box"]]
        self.mission_func = lambda colour, kind: f"fetch the {colour} {kind}"
        self.is_open = is_open

    def contains(self, x):
        return self.is_open


def test_texts_become_numbers_of_words_or_characters():
    words = encoding_of(Missions(), 20)
    assert words.space.nvec.tolist() == [8] * 4
    assert words.encode("fetch the red box").tolist() == [3, 6, 5, 2]
    assert words.encode("fetch the blue").tolist() == [3, 6, 7, 0]
    with pytest.warns(UserWarning, match="more than 4 words are cut"):
        assert words.encode("fetch the red box box").tolist() == [3, 6, 5, 2]
    letters = encoding_of(Missions(is_open=True), 20)
    assert letters.length == 20
    np.testing.assert_array_equal(letters.encode("Fetch"), letters.encode("fetch"))
    own = encoding_of(spaces.Text(3, charset="ba"), 20)
    assert own == TextEncoding({"a": 1, "b": 2}, 3)
    assert own.encode("ab").tolist() == [1, 2, 0]
    with pytest.warns(UserWarning, match=r"more than 3 characters are cut.*text_length"):
        assert own.encode("abab").tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match=r"has 640000 columns.*ObservationWrapper"):
        encoding_of(spaces.Text(10_000), 20)
    assert encoding_of(spaces.Discrete(3), 20) is None
