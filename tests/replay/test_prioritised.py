"""Prioritised replay against plain loops."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from batches import MIXED, any_world, check_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World
from priorities import stored_steps
from scipy.stats import chisquare

from rlkit.replay import SAMPLERS, PrioritisedSampler, PrioritySampler, check_sampler
from rlkit.replay.prioritised import SMALLEST
from rlkit.replay.sum_tree import SumTree

numbers = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e6)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(numbers, st.lists(st.tuples(st.integers(0, 39), st.floats(0, 10)), max_size=20), st.data())
def test_a_tree_finds_where_the_running_sum_exceeds_a_mass(
    values: list[float], changes: list[tuple[int, float]], data: st.DataObject
) -> None:
    tree = SumTree(len(values))
    tree.put(np.arange(len(values)), np.array(values))
    changes = [(leaf % len(values), value) for leaf, value in changes]
    for leaf, value in changes:
        values[leaf] = value
    if changes:
        leaves, new = zip(*changes, strict=True)
        tree.put(np.array(leaves), np.array(new))
    np.testing.assert_array_equal(tree.leaves, values)
    assert tree.total == pytest.approx(sum(values))
    if tree.total == 0:
        return
    assert (tree.leaves[tree.find(np.full(1, tree.total))] > 0).all(), "rounding may reach the end"
    shares = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
    found = tree.find(np.array(shares) * tree.total)
    assert (tree.leaves[found] > 0).all()
    running = np.cumsum(values)
    for mass, leaf in zip(np.array(shares) * tree.total, found, strict=True):
        near = 1e-9 * tree.total
        assert running[leaf] > mass - near
        assert running[leaf] - values[leaf] <= mass + near


def test_equal_leaves_make_equal_trees() -> None:
    rng = np.random.default_rng(0)
    one, two = SumTree(77), SumTree(77)
    for _ in range(50):
        one.put(rng.integers(0, 77, 30), rng.random(30) ** 5)
    two.put(np.arange(77), one.leaves)
    np.testing.assert_array_equal(one._nodes, two._nodes)


@pytest.mark.parametrize("name", ["prioritised", {"name": "prioritised", "alpha": 0.0}])
def test_it_obeys_the_laws(name: Any) -> None:
    sampler = SAMPLERS.make(name)
    assert isinstance(sampler, PrioritySampler)
    check_sampler(sampler)
    described = SAMPLERS.describe(sampler)
    assert described["name"] == "prioritised"
    assert SAMPLERS.make(described) == sampler


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"beta": -0.1}, "beta must lie"),
        ({"eta": 2}, "eta must lie"),
        ({"anneal": 0}, "anneal must be >= 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings_: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrioritisedSampler(**settings_)


class Loops:
    """Priorities by environment and position, in a dict."""

    def __init__(self, alpha: float) -> None:
        self.alpha, self.known, self.highest = alpha, dict[tuple[int, int], float](), 1.0

    def take_in(self, storage: Any) -> None:
        steps = set(zip(*(part.tolist() for part in stored_steps(storage)), strict=True))
        self.known = {step: self.known.get(step, self.highest) for step in steps}

    def update(self, env: Any, position: Any, value: Any) -> None:
        for e, p, v in zip(env.tolist(), position.tolist(), value.tolist(), strict=True):
            if (e, p) in self.known:
                self.known[e, p] = v + SMALLEST
                self.highest = max(self.highest, v + SMALLEST)

    def chance(self) -> dict[tuple[int, int], float]:
        total = sum(p**self.alpha for p in self.known.values())
        return {step: p**self.alpha / total for step, p in self.known.items()}


def chances(sampler: PrioritisedSampler, storage: Any) -> dict[tuple[int, int], float]:
    env, position = stored_steps(storage)
    assert sampler._tree is not None
    leaves = sampler._tree.leaves
    assert leaves.sum() == pytest.approx(leaves[storage.flat(env, position)].sum(), abs=1e-12)
    found = leaves[storage.flat(env, position)] / sampler._tree.total
    return dict(zip(zip(env.tolist(), position.tolist(), strict=True), found, strict=True))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(any_world(["plain"]), st.lists(st.integers(0, 12), max_size=8), st.floats(0, 1), st.data())
def test_chances_are_those_of_a_dict(
    world: World, rounds: list[int], alpha: float, data: st.DataObject
) -> None:
    storage, plain = world.replay.storage, Loops(alpha)
    sampler = PrioritisedSampler(alpha=alpha)
    world.play(1)
    rng = np.random.default_rng(0)
    draws = [sampler.draw(storage, 8, rng)]
    plain.take_in(storage)
    for steps in rounds:
        world.play(steps)
        if data.draw(st.booleans()):
            world.cut()
        if data.draw(st.booleans()):  # before new steps are known, and after
            draws.append(sampler.draw(storage, 8, rng))
            plain.take_in(storage)
        env, position = draws[data.draw(st.integers(-3, -1)) % len(draws)]  # perhaps overwritten
        value = rng.random(8) * 10 ** rng.uniform(-3, 1)
        sampler.update(env, position, value)
        plain.update(env, position, value)
    env, position = sampler.draw(storage, 8, rng)
    plain.take_in(storage)
    expected = plain.chance()
    found = chances(sampler, storage)
    assert found.keys() == expected.keys()
    for step, chance in expected.items():
        assert found[step] == pytest.approx(chance, rel=1e-6)
    weight = sampler.importance(storage, env, position)
    beta = 0.4 + 0.6 * sampler._drawn / sampler.anneal
    for e, p, w in zip(env, position, weight, strict=True):
        assert w == pytest.approx((len(expected) * expected[e, p]) ** -beta, rel=1e-5)


def test_steps_are_drawn_by_their_chances() -> None:
    world = World("plain", 2, 40, end=0.2)
    world.play(30)
    storage, sampler = world.replay.storage, PrioritisedSampler(alpha=0.7)
    rng = np.random.default_rng(0)
    sampler.draw(storage, 1, rng)
    env, position = stored_steps(storage)
    sampler.update(env, position, rng.random(len(env)) ** 3)
    expected = chances(sampler, storage)
    drawn = sampler.draw(storage, 20_000, rng)
    steps, counts = np.unique(np.stack(drawn, axis=1), axis=0, return_counts=True)
    found = dict(zip(map(tuple, steps.tolist()), counts, strict=True))
    table = [(found.get(step, 0), 20_000 * chance) for step, chance in expected.items()]
    assert chisquare(*zip(*table, strict=True)).pvalue > 1e-3


def test_importance_makes_expectations_those_of_uniform_draws() -> None:
    world = World("box", 2, 200, end=0.1, hindsight="original")
    world.replay = world.new_replay(sampler={"name": "prioritised", "beta": 1.0})
    world.play(80)
    storage, rng = world.replay.storage, np.random.default_rng(0)
    world.replay.sample(1)
    env, position = stored_steps(storage)
    storage.reward[storage.flat(env, position)] = reward = rng.normal(size=len(env))
    world.replay.sampler.update(env, position, np.exp(reward))
    batch = world.replay.sample(60_000)
    assert batch.importance is not None
    plain, weighted = batch.reward[:, 0], batch.importance * batch.reward[:, 0]
    assert plain.mean() > reward.mean() + 0.1
    assert weighted.mean() == pytest.approx(reward.mean(), abs=0.03)


def test_goals_of_a_drawn_step_are_those_of_uniform_replay() -> None:
    """The weight belongs to the step: given a step, goals are drawn as ever."""
    world = World("box", 1, 60, end=0.0, new_goal=0.0, hindsight={"future": 1.0})
    world.replay = world.new_replay(sampler="prioritised")
    world.play(8)
    storage = world.replay.storage
    storage.columns["achieved_goal"].array[:] = storage.observation["observation"][:, 2:]
    world.replay.sample(1)
    env, position = stored_steps(storage)
    world.replay.sampler.update(env, position, np.linspace(5, 0.1, len(env)))
    batch = world.replay.sample(20_000)
    assert batch.importance is not None
    for step in range(6):
        rows = batch.position == step
        assert len(np.unique(batch.importance[rows])) == 1
        goals, counts = np.unique(batch.desired_goal[rows, 0, 0], return_counts=True)  # type: ignore[index]
        assert goals.tolist() == list(range(step + 1, 9))
        assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("burn_in", [0, 2])
def test_a_window_s_priority_belongs_to_all_of_its_steps_that_count(burn_in: int) -> None:
    world = World("box", 2, 200, end=0.15, terminates=True)
    world.replay = world.new_replay(
        window=4, burn_in=burn_in, sampler={"name": "prioritised", "alpha": 1.0, "eta": 0.7}
    )
    world.play(60)
    batch = world.replay.sample(3)
    error = np.random.default_rng(0).random((3, 4)) + 5
    world.replay.update_priorities(batch, error)
    expected = {}
    for row in range(3):
        valid = np.flatnonzero(batch.mask[row, burn_in:])
        own = error[row, valid]
        for t in valid:
            step = int(batch.env[row]), int(batch.position[row] + t)
            expected[step] = 0.7 * own.max() + 0.3 * own.mean() + SMALLEST
    tree, storage = world.replay.sampler._tree, world.replay.storage  # type: ignore[attr-defined]
    for (env, position), priority in expected.items():
        assert tree.leaves[storage.flat(np.array(env), np.array(position))] == pytest.approx(
            priority
        )
    assert (tree.leaves > 2).sum() == len(expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"already_achieved_weight": 0.1, "steps": 3},
        {"window": 4, "burn_in": 2, "goals": "step"},
        {"window": None},
    ],
)
def test_a_restored_replay_buffer_goes_on_exactly(options: Any) -> None:
    options = {"hindsight": MIXED, "sampler": "prioritised", **options}
    world = World("box", 2, 60, **options)
    world.play(25)

    def rounds(*replays: Any) -> None:
        for i in range(3):
            batches = [replay.sample(12) for replay in replays]
            for replay, batch in zip(replays, batches, strict=True):
                check_equal(batch, batches[0])
                shape = batch.mask[:, batch.burn_in :].shape
                replay.update_priorities(batch, np.random.default_rng(i).random(shape))

    rounds(world.replay)
    other = world.new_replay(seed=5)
    other.load_state_dict(pickle.loads(pickle.dumps(world.replay.state_dict())))
    rounds(world.replay, other)
    world.play(40, other)
    rounds(world.replay, other)


def test_a_state_of_uniform_replay_begins_with_equal_priorities() -> None:
    world = World("box", 2, 60)
    world.play(25)
    other = world.new_replay(sampler="prioritised")
    other.load_state_dict(world.replay.state_dict())
    batch = other.sample(20)
    np.testing.assert_allclose(batch.importance, 1.0, rtol=1e-6)


def test_steps_that_were_retracted_are_not_drawn() -> None:
    world = World("plain", 2, 60, end=0.5)
    sampler = PrioritisedSampler()
    rng = np.random.default_rng(0)
    for _ in range(40):
        world.play(1)
        if rng.random() < 0.5:
            sampler.draw(world.replay.storage, 4, rng)
        ended = np.flatnonzero(world.replay.storage.begins)
        if len(ended):
            world.replay.storage.retract(int(ended[0]))
        if len(world.replay.storage):
            env, position = sampler.draw(world.replay.storage, 64, rng)
            flat = world.replay.storage.flat(env, position)
            assert world.replay.storage.has_action[flat].all()


def test_an_empty_storage_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        World("box", sampler="prioritised").replay.sample(4)


def test_numbers_of_records_need_a_sampler_that_takes_them() -> None:
    world = World("box")
    world.play(5)
    batch = world.replay.sample(4)
    assert batch.importance is None
    with pytest.raises(TypeError, match="UniformSampler takes a number per window"):
        world.replay.update_priorities(batch, np.ones((4, 1)))
