"""Random actions that are held: durations, share, ends of episodes, state."""

import numpy as np
import pytest
from gymnasium import spaces

from rlkit.offpolicy.held_actions import HeldActions
from rlkit.offpolicy.spaces import SpaceAdapter

OBSERVATION = spaces.Box(-1, 1, (2,), np.float32)
BOX = spaces.Box(-1, 1, (2,), np.float32)
CHOSEN = 7.0  # no random action has it


def make_held(longest, count=1, space=BOX):
    return HeldActions(SpaceAdapter(OBSERVATION, space), count, longest)


def play(random, share, steps, count, length=None, seed=0):
    """Actions `(steps, count)`, CHOSEN where the policy's; episodes last `length` steps."""
    generator, taken = np.random.default_rng(seed), []
    for step in range(steps):
        is_first = np.full(count, step == 0 or (length is not None and step % length == 0))
        chosen = np.full((count, 2), CHOSEN, np.float32)
        taken.append(random.mixed(chosen, share, is_first, generator)[:, 0])
    return np.array(taken)


def durations(row):
    """Lengths of the runs of equal random actions that begin and end within a row."""
    ends = np.flatnonzero(np.diff(row)) + 1
    runs = np.split(row, ends)[1:-1]
    return [len(run) for run in runs if run[0] != CHOSEN]


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("longest", [2, 5])
def test_durations_are_uniform_from_one_to_the_longest(longest, share):
    found = np.concatenate(
        [durations(row) for row in play(make_held(longest, 50), share, 800, 50).T]
    )
    assert len(found) > 500
    counts = np.bincount(found, minlength=longest + 1)
    assert counts[0] == 0
    assert len(counts) == longest + 1
    expected = len(found) / longest
    assert np.abs(counts[1:] - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("longest", [2, 10])
def test_the_share_is_that_of_random_actions_at_every_step_of_an_episode(longest, share):
    count, length = 4000, 12
    taken = play(make_held(longest, count), share, 2 * length, count, length)
    found = (taken != CHOSEN).mean(axis=1)
    error = np.sqrt(share * (1 - share) / count)
    assert np.abs(found - share).max() <= 5 * error


def test_the_end_of_an_episode_ends_a_held_action():
    taken = play(make_held(50, 200), 1.0, 8, 200, length=4)
    assert (taken[:4] == taken[3]).all(axis=0).mean() > 0.8
    assert (taken[3] != taken[4]).all()


def test_environments_hold_actions_of_their_own():
    taken = play(make_held(10, 30), 1.0, 5, 30)
    assert len(np.unique(taken[0])) == 30
    changes = (np.diff(taken, axis=0) != 0).mean(axis=1)
    assert ((changes > 0) & (changes < 1)).all()


def test_a_held_action_goes_on_after_the_share_has_dropped_to_zero():
    random, generator = make_held(50, 100), np.random.default_rng(0)
    chosen, first = np.full((100, 2), CHOSEN, np.float32), np.ones(100, bool)
    before = random.mixed(chosen, 1.0, first, generator)
    state = generator.bit_generator.state
    after = random.mixed(chosen, 0.0, ~first, generator)
    assert generator.bit_generator.state == state
    held = after[:, 0] != CHOSEN
    assert held.mean() > 0.9
    np.testing.assert_array_equal(after[held], before[held])


@pytest.mark.parametrize(
    "space", [BOX, spaces.Discrete(4), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)]
)
def test_every_kind_of_action_is_held_and_resumes(space):
    random, other = make_held(4, 6, space), make_held(4, 6, space)
    generator, first = np.random.default_rng(0), np.ones(6, bool)
    for step in range(5):
        random.uniform(first if step == 0 else ~first, generator)
    other.load_state_dict({name: value.copy() for name, value in random.state_dict().items()})
    continued = np.random.default_rng()
    continued.bit_generator.state = generator.bit_generator.state
    chosen = np.zeros_like(SpaceAdapter(OBSERVATION, space).random_actions(6, continued))
    continued.bit_generator.state = generator.bit_generator.state
    for _ in range(10):
        expected = random.mixed(chosen, 0.5, ~first, generator)
        found = other.mixed(chosen, 0.5, ~first, continued)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == chosen.dtype
