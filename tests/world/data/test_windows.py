import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.world import Episodes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(lengths, **columns):
    """Episodes in which each number encodes its place: 100 * episode + step."""
    places = [100 * e + np.arange(length + 1) for e, length in enumerate(lengths)]
    x = np.concatenate(places)[:, None].astype(np.float32)
    action = np.concatenate([place[:-1] for place in places])[:, None] + 0.5
    return Episodes(x, action, lengths, reward=action[:, 0] + 0.25, **columns)


Lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(max_examples=40)
@given(Lengths, st.integers(1, 6), st.integers(0, 99))
def test_windows_are_pieces_of_episodes(lengths, steps, seed):
    windows = numbered(lengths).sample(8, steps, generator(seed), ("reward",))
    assert windows.observation.shape == (8, steps + 1, 1)
    assert windows.is_first[:, 0].all()
    assert not windows.is_first[:, 1:].any()
    for row in range(8):
        x, mask = windows.observation[row, :, 0], windows.mask[row]
        episode, start = divmod(int(x[0]), 100)
        length = lengths[episode]
        for t in range(steps):
            here = min(start + t, length - 1)
            assert bool(mask[t]) == (start + t < length)
            assert float(x[t + 1]) == 100 * episode + min(start + t + 1, length)
            assert float(windows.action[row, t, 0]) == 100 * episode + here + 0.5
            assert float(windows.outcome[row, t, 0]) == 100 * episode + here + 0.75
            assert int(windows.position[row, t]) == sum(lengths[:episode]) + here
        # Padding only where there is no other way.
        assert mask.all() or (start == 0 and length < steps)


@settings(max_examples=40)
@given(Lengths, st.integers(1, 6))
def test_every_step_stands_once(lengths, steps):
    data = numbered(lengths)
    batches = list(data.in_order(steps, count=2))
    found = torch.cat([one.position[one.mask] for one in batches])
    assert found.tolist() == list(range(data.steps))
    assert all(len(one) <= 2 for one in batches)


@settings(max_examples=40)
@given(Lengths, st.floats(0.05, 0.95))
def test_splits_part_the_steps(lengths, share):
    data = numbered(lengths)

    def steps(part):
        return [float(a) for one in part.in_order(1) for a in one.action.flatten()]

    if len(lengths) > 1:
        training, held_out = data.split(share, generator())
        assert sorted(steps(training) + steps(held_out)) == steps(data)
        assert not {s // 100 for s in steps(training)} & {s // 100 for s in steps(held_out)}
    cut = data.steps - round(share * data.steps)
    if 0 < cut < data.steps:
        before, after = data.split_time(share)
        assert steps(before) + steps(after) == steps(data)
        assert len(steps(before)) == before.steps == cut
        assert data.steps == sum(lengths)


def test_steps_are_drawn_alike():
    data = numbered([40, 3, 17])
    windows = data.sample(20_000, 5, generator())
    counts = np.bincount(windows.position[windows.mask].numpy(), minlength=60)
    share = counts / counts.sum() * 60
    assert share.min() > 0.4, "an edge is in fewer windows, but not in few"
    assert share.max() < 2.1
    assert data.sample(9, 5, generator(1)).position.equal(data.sample(9, 5, generator(1)).position)
    single = data.sample(60_000, 1, generator())
    counts = np.bincount(single.position[:, 0].numpy(), minlength=60)
    np.testing.assert_allclose(counts, 1000, atol=150)


@settings(max_examples=40)
@given(Lengths, st.integers(0, 4), st.integers(1, 4), st.integers(1, 7))
def test_cases_are_places_that_fit(lengths, context, horizon, count):
    data = numbered(lengths)
    places = [(e, s) for e, n in enumerate(lengths) for s in range(n - context - horizon + 1)]
    if not places:
        with pytest.raises(ValueError, match=f"no episode has {context + horizon} steps"):
            data.forecast_windows(context, horizon)
        return
    every = data.forecast_windows(context, horizon)
    assert list(zip(every.episode.tolist(), every.start.tolist(), strict=True)) == places
    some = data.forecast_windows(context, horizon, count)
    assert len(some) == min(count, len(places))
    for row, (e, s) in enumerate(zip(some.episode, some.start, strict=True)):
        assert (int(e), int(s)) in places
        x = 100 * e + s + np.arange(context + horizon + 1)
        seen, future = some.context_observation[row, :, 0], some.future_observation[row, :, 0]
        np.testing.assert_array_equal(np.concatenate([seen, future]), x)
        past, driven = some.context_action[row, :, 0], some.future_action[row, :, 0]
        np.testing.assert_array_equal(np.concatenate([past, driven]), x[:-1] + 0.5)


class Counted(np.ndarray):
    """An array that counts the rows that are read of it."""

    read = 0

    def __getitem__(self, rows):
        found = np.asarray(self)[rows]
        Counted.read += found.size
        return found


def test_only_the_rows_that_are_drawn_are_read(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1_000_010, dtype=np.float32)[:, None])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    action = np.zeros((1_000_000, 0), np.float32)
    data = Episodes(mapped.view(Counted), action, [100_000] * 10)
    Counted.read = 0
    windows = data.sample(4, 3, generator())
    assert windows.observation[:, 1].equal(windows.observation[:, 0] + 1)
    data.split(0.2, generator())[1].sample(4, 3, generator())
    data.split_time(0.2)[1].sample(4, 3, generator())
    data.forecast_windows(2, 1, 5)
    assert 0 < Counted.read <= 3 * 16 + 20


def test_single_arrays_are_joined():
    rng = np.random.default_rng(0)
    episodes = [
        {"observation": rng.normal(size=(n + 1, 2)), "action": rng.normal(size=(n, 1))}
        for n in (3, 5)
    ]
    data = Episodes.of(episodes)
    assert (len(data), data.steps) == (2, 8)
    second = next(iter(data.in_order(5))).observation[1]
    np.testing.assert_allclose(second, episodes[1]["observation"], rtol=1e-6)


X, A = np.zeros((7, 2)), np.zeros((5, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, A, []), "at least one episode"),
        ((X, A, [5, 0]), "at least one episode of one step or more, got"),
        ((X[:6], A, [3, 2]), r"observation has shape \(6, 2\), not \(7, columns\): 2 episodes"),
        ((X, A[:4], [3, 2]), r"action has shape \(4, 1\), not \(5, columns\)"),
        ((X, A[:, 0], [3, 2]), r"action has shape \(5,\), not \(5, columns\)"),
        ((X, A, [3, 2], np.zeros(4)), r"reward has shape \(4,\), not \(5,\)"),
        ((X, A, [3, 2], None, A), r"terminated has shape \(5, 1\), not \(5,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Episodes(*arguments)


ONE = {"observation": np.zeros((4, 2)), "action": np.zeros((3, 1))}


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], "there is no episode"),
        ([ONE, {**ONE, "action": np.zeros((4, 1))}], "4 actions lead to 5 observations"),
        ([ONE, {**ONE, "observation": np.zeros((4, 3))}], r"episode 1 has shape \(4, 3\), not"),
        ([ONE, {**ONE, "reward": np.zeros(3)}], "either all or none reward"),
        ([{**ONE, "rewards": np.zeros(3)}], r"episode 0 has \['rewards'\]; known are"),
        ([{"observation": X}], "each needs observation and action"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(episodes, message):
    with pytest.raises(ValueError, match=message):
        Episodes.of(episodes)


def test_requests_that_cannot_be_met_are_refused():
    data = Episodes(X, A, [3, 2])
    with pytest.raises(ValueError, match=r"has no reward: give it, Episodes\(..., reward="):
        data.sample(1, 1, generator(), ("reward",))
    with pytest.raises(ValueError, match=r"no episode has 4 steps, 2 of context.*longest has 3"):
        data.forecast_windows(2, 2)
    with pytest.raises(ValueError, match="horizon >= 1, got 0 and 0"):
        data.forecast_windows(0, 0)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="share must lie between 0 and 1"):
            data.split(share, generator())
    with pytest.raises(ValueError, match="use split_time"):
        Episodes(X[:6], A, [5]).split(0.5, generator())
    with pytest.raises(ValueError, match=r"5 steps are too few to hold out 0\.01"):
        data.split_time(0.01)


def test_numbers_that_are_not_finite_are_located():
    x = np.zeros((7, 2))
    x[5, 1] = np.nan
    data = Episodes(x, A, [3, 2])
    with pytest.raises(
        ValueError, match=r"observation must be finite, found nan at index \(5, 1\)"
    ):
        list(data.chunks("observation"))
    with pytest.raises(ValueError, match="observation must be finite, found nan"):
        data.forecast_windows(0, 1)
    words = Episodes(np.array([["a"]] * 7), A, [3, 2])
    with pytest.raises(ValueError, match="observation is of type <U1"):
        list(words.chunks("observation"))
