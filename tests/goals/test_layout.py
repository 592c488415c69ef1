import numpy as np
import pytest
from gymnasium import spaces

from rlkit.goals import ObservationLayout, vector_size, vectorise

SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(-5, 5, (2,), np.int64),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiBinary(5),
    spaces.MultiBinary([2, 3]),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.Dict(
        b=spaces.Box(-1, 1, (2,), np.float32), a=spaces.Discrete(3), c=spaces.MultiBinary(2)
    ),
    spaces.Dict(outer=spaces.Dict(inner=spaces.Discrete(2)), flat=spaces.MultiDiscrete([2, 2])),
]


def batch(space, samples):
    if isinstance(space, spaces.Dict):
        return {k: batch(part, [s[k] for s in samples]) for k, part in space.spaces.items()}
    return np.stack([np.asarray(sample) for sample in samples])


def reshape(value, lead):
    if isinstance(value, dict):
        return {key: reshape(part, lead) for key, part in value.items()}
    return value.reshape(*lead, *value.shape[1:])


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_rows_equal_gymnasiums_flatten(space):
    space.seed(0)
    samples = [space.sample() for _ in range(6)]
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    values = batch(space, samples)
    vectors = vectorise(space, values, lead=1)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, vector_size(space))
    np.testing.assert_allclose(vectors, expected.astype(np.float32))
    np.testing.assert_array_equal(
        vectorise(space, reshape(values, (2, 3)), lead=2), vectors.reshape(2, 3, -1)
    )


def test_multi_discrete_counts_from_its_start():
    space = spaces.MultiDiscrete([2, 3], start=[5, -1])
    assert vectorise(space, np.array([[6, -1]]), lead=1).tolist() == [[0, 1, 1, 0, 0]]


def test_pixels_are_scaled_to_one():
    space = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    pixels = np.array([[[[0], [51]], [[102], [255]]]], np.uint8)
    np.testing.assert_allclose(vectorise(space, pixels, lead=1), [[0, 0.2, 0.4, 1]], rtol=1e-6)


def test_arguments_are_left_alone():
    space = spaces.Box(-1, 1, (2,), np.float32)
    value = np.ones((3, 2), np.float32)
    vectorise(space, value, lead=1)[:] = 0
    assert (value == 1).all()


def test_spaces_without_a_vector_form_are_named():
    with pytest.raises(ValueError, match=r"Text.*no vector form"):
        vector_size(spaces.Dict(a=spaces.Text(3)))


BOX = spaces.Box(-1, 1, (2,), np.float32)
GOALS = {"observation": spaces.Box(-1, 1, (3,)), "achieved_goal": BOX, "desired_goal": BOX}


@pytest.mark.parametrize("unsorted", [False, True])
def test_a_layout_sorts_the_keys_and_leaves_out_the_desired_goal(unsorted):
    parts = {**GOALS, "goal_visible": spaces.Discrete(2)}
    layout = ObservationLayout.of(spaces.Dict(**parts) if unsorted else spaces.Dict(parts))
    observation = {
        "observation": np.full((4, 3), 3),
        "achieved_goal": np.full((4, 2), 2),
        "desired_goal": np.full((4, 2), 9),
        "goal_visible": np.array([1, 0, 1, 1]),
    }
    assert layout.vector(observation)[1].tolist() == [2, 2, 1, 0, 3, 3, 3]
    assert layout.vector(observation)[0].tolist() == [2, 2, 0, 1, 3, 3, 3]
    assert (layout.size, layout.goal_size) == (7, 2)
    assert layout.achieved == slice(0, 2)
    assert layout.slices["observation"] == slice(4, 7)
    assert layout.desired_goal(observation).tolist() == [[9, 9]] * 4
    assert layout.visible(observation).tolist() == [1, 0, 1, 1]


def test_keys_can_be_left_out():
    layout = ObservationLayout.of(spaces.Dict(GOALS), without=["achieved_goal"])
    assert layout.achieved is None
    assert layout.slices == {"observation": slice(0, 3)}
    assert layout.goal_size == 2
    assert layout.visible({}) is None


def test_a_plain_space_is_one_part():
    layout = ObservationLayout.of(spaces.Box(-1, 1, (2, 2)))
    assert layout.slices == {"observation": slice(0, 4)}
    assert layout.vector(np.ones((5, 3, 2, 2)), lead=2).shape == (5, 3, 4)
    assert (layout.goal_size, layout.achieved, layout.hides_goal) == (0, None, False)
    with pytest.raises(ValueError, match="has no goals"):
        layout.goal_vector(np.ones((1, 4)))


def test_choices_outside_of_their_space_are_errors():
    space = spaces.MultiDiscrete([2, 3])
    with pytest.raises(ValueError, match="lies outside of it"):
        vectorise(space, np.array([[2, 0]]), lead=1)


def test_a_goal_without_the_other_keys_is_part_of_the_observation():
    layout = ObservationLayout.of(spaces.Dict(desired_goal=BOX, position=BOX))
    assert list(layout.slices) == ["desired_goal", "position"]
    assert layout.goal is None
