from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from batches import any_world, check_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World
from scipy.stats import chisquare

from rlkit.replay.batch import sum_steps
from rlkit.replay.relabelling import draw_goals, relabel

sequences = {
    "window": st.sampled_from([None, 1, 2, 5, 12]),
    "previous_action": st.booleans(),
    "previous_reward": st.booleans(),
    "hidden_state": st.sampled_from([(), ((3,),), ((2,), (2, 1), ())]),
}
worlds = any_world(
    end=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    new_goal=st.sampled_from([0.0, 0.2]),
    hindsight=st.just("original"),
    goals=st.sampled_from(["step", "window"]),
    **sequences,
)
plays = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=3)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(worlds, st.integers(0, 7), plays)
def test_windows_equal_the_naive_ones(world, burn_in, plays):
    window = world.options["window"]
    world.replay = world.new_replay(burn_in=0 if window is None else burn_in)
    for steps, cut in plays:
        world.play(steps)
        if cut:
            world.cut()
        if len(world.replay) == 0:
            continue
        batch = world.replay.sample(24)
        assert (batch.previous_action is not None) == world.options["previous_action"]
        assert (batch.previous_reward is not None) == world.options["previous_reward"]
        assert len(batch.hidden_state or ()) == len(world.options["hidden_state"])
        if not world.replay.reads_sequences:
            continue  # `test_storage` has these
        stored = set(world.stored())
        for row, origin in enumerate(world.origins(batch)):
            assert origin in stored
            world.check_sequence(batch, row, origin)
            env, e, start = origin
            first, steps = world.first_kept(env, e), world.envs[env][e].steps
            assert batch.mask[row].sum() == min(steps - first, window or steps) or window == 1
            assert start == first or start + (window or 0) <= steps
        if window is None:
            assert batch.mask.any(axis=0).all()


def starts_of(world, window):
    """Shares of the places where windows begin, by drawing every step and every shift once."""
    shares = Counter()
    stored = world.stored()
    for env, e, t in stored:
        first, steps = world.first_kept(env, e), world.envs[env][e].steps
        for shift in range(window):
            start = min(max(t - shift, first), max(first, steps - window))
            shares[env, e, start] += 1 / window / len(stored)
    return shares


@pytest.mark.parametrize("end", [0.02, 0.3])
@pytest.mark.parametrize("window", [1, 4, 9])
def test_windows_lie_anywhere_around_uniform_steps(window, end):
    world = World("plain", num_envs=3, capacity=90, end=end, window=window, burn_in=2)
    world.play(200)
    shares = starts_of(world, window)
    counts = Counter(world.origins(world.replay.sample(30_000)))
    assert set(counts) == set(shares)
    expected = [30_000 * shares[place] for place in shares]
    assert chisquare([counts[place] for place in shares], expected).pvalue > 1e-3


@pytest.mark.parametrize("end", [0.02, 0.3])
@pytest.mark.parametrize("window", [1, 4, 9])
def test_every_stored_step_is_covered_about_as_often_as_any_other(window, end):
    world = World("plain", num_envs=3, capacity=90, end=end, window=window)
    world.play(200)
    stored, count = world.stored(), 20_000
    batch = world.replay.sample(count)
    covered = Counter()
    for row, (env, e, start) in enumerate(world.origins(batch)):
        covered.update((env, e, start + int(i)) for i in np.flatnonzero(batch.mask[row]))
    assert set(covered) == set(stored)
    for env, e, t in stored:
        kept = world.envs[env][e].steps - world.first_kept(env, e)
        # A step at an episode's edge lies in half as many windows; those of a short episode are
        # moved onto its middle, which lies in up to twice as many.
        fair = count * min(window, kept) / len(stored)
        assert 0.45 * fair < covered[env, e, t] < 2.1 * fair


@pytest.mark.parametrize("num_envs", [1, 3])
def test_whole_episodes_are_drawn_as_often_as_they_have_steps(num_envs):
    world = World("box", num_envs=num_envs, capacity=70, end=0.15, window=None)
    world.play(150)
    steps = Counter((env, e) for env, e, _ in world.stored())
    counts = Counter((env, e) for env, e, _ in world.origins(world.replay.sample(20_000)))
    assert set(counts) == set(steps)
    expected = [20_000 * n / steps.total() for n in steps.values()]
    assert chisquare([counts[episode] for episode in steps], expected).pvalue > 1e-3


def test_an_overwritten_beginning_is_a_start():
    options = {"previous_action": True, "previous_reward": True, "hidden_state": ((2,),)}
    world = World("plain", num_envs=1, capacity=10, end=0.0, window=4, burn_in=3, **options)
    world.play(25)
    first = world.first_kept(0, 0)
    assert first > 0
    batch = world.replay.sample(200)
    starts = np.array([t for _, _, t in world.origins(batch)])
    assert {first, first + 1, first + 3, first + 4} <= set(starts)
    edge = np.flatnonzero(starts == first + 1)[0]
    np.testing.assert_array_equal(batch.is_first[edge, :4], [True, True, True, False])
    assert not batch.previous_action[edge, :3].any()
    assert not batch.previous_reward[edge, :3].any()
    assert batch.previous_action[edge, 3].any()
    beyond = starts == first + 4
    assert not batch.is_first[beyond].any()
    assert batch.hidden_state[0][beyond].all()
    assert not batch.hidden_state[0][~beyond & (starts <= first + 3)].any()


@pytest.mark.parametrize("kind", ["plain", "box"])
@pytest.mark.parametrize("steps", [1, 3])
def test_single_records_are_drawn_as_ever(kind, steps):
    world = World(kind, capacity=60, end=0.1, terminates=True, steps=steps)
    plain, recurrent = world.replay, world.new_replay(previous_action=True, hidden_state=((1,),))
    per_step = world.new_replay(goals="step")
    world.play(100, recurrent, per_step)
    rng = np.random.default_rng(1)
    for _ in range(3):
        env, position = plain.storage.sample_steps(64, rng)
        expected = plain.storage.window(env, position, steps)
        stop = None
        if plain.rule is not None:
            drawn = draw_goals(env, position, plain.storage, plain.weights, rng)
            expected = relabel(expected, drawn, plain.rule)
            stop = plain._successes(expected)
        expected = sum_steps(expected, 0.99, steps, stop)
        sample = plain.sample(64)
        check_equal(sample, expected)
        # A goal per step is a goal per window of one.
        check_equal(per_step.sample(64), expected)
        check_equal(
            recurrent.sample(64), expected, skip=("is_first", "previous_action", "hidden_state")
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"burn_in": -1}, "burn_in must be at least 0.*got -1 with window=1"),
        ({"burn_in": 2, "window": None}, "got 2 with window=None"),
        ({"goals": "episode"}, "goals must be one of .* got 'episode'"),
        ({"goals": "step", "previous_reward": True}, 'previous_reward needs goals="window"'),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        World("box", **options)


def test_original_rewards_may_be_inputs_beside_a_goal_per_step():
    options = {"goals": "step", "previous_reward": True}
    World("box", hindsight="original", **options)
    World("plain", **options)


@pytest.mark.parametrize(
    ("kept", "given"),
    [
        (((3,),), None),
        (((3,),), (np.zeros((1, 3)),)),
        (((3,),), (np.zeros((2, 3)), np.zeros((2, 3)))),
        ((), (np.zeros((2, 3)),)),
    ],
)
def test_memory_of_other_shapes_is_refused(kept, given):
    world = World("plain", num_envs=2, hidden_state=kept)
    with pytest.raises(ValueError, match="hidden_state has shapes"):
        world.replay.add(*world.step(), given)
    assert len(world.replay) == 0


def test_a_replay_with_another_memory_is_refused():
    states = [
        World("plain", hidden_state=hidden_state).replay.state_dict()
        for hidden_state in ((), ((2,),), ((3,),))
    ]
    for i, hidden_state in enumerate([(), ((2,),), ((3,),)]):
        for j, state in enumerate(states):
            if i != j:
                with pytest.raises(ValueError, match="the saved replay"):
                    World("plain", hidden_state=hidden_state).replay.load_state_dict(state)


def test_batches_of_sequences_have_parts():
    options = {"previous_action": True, "previous_reward": True, "hidden_state": ((2,), (3, 1))}
    world = World("box", window=4, burn_in=2, steps=2, **options)
    world.play(40)
    whole = world.replay.sample(12)
    parts = [whole.part(slice(i, i + 4)) for i in range(0, 12, 4)]
    assert [(len(part), part.burn_in) for part in parts] == [(4, 2)] * 3
    for name in ("previous_action", "previous_reward", "mask", "position"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for i in range(2):
        joined = np.concatenate([part.hidden_state[i] for part in parts])
        np.testing.assert_array_equal(joined, whole.hidden_state[i])
    world.replay = world.new_replay(previous_action=False, previous_reward=False, hidden_state=())
    world.play(10)
    part = world.replay.sample(4).part(slice(2, 4))
    assert part.hidden_state is part.previous_action is part.previous_reward is None
