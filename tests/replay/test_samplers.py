"""Samplers: the laws, and what a replay buffer draws with one."""

import numpy as np
import pytest
from batches import check_equal
from naive import World
from priorities import Prioritised, stored_steps

import rlkit.envs  # noqa: F401 registers the environments
from rlkit.agents import SAC
from rlkit.replay import (
    SAMPLERS,
    PrioritisedSampler,
    ReplaySampler,
    UniformSampler,
    check_sampler,
)

NAME = f"{Prioritised.__module__}:{Prioritised.__qualname__}"


@pytest.mark.parametrize("name", ["uniform", {"name": NAME, "power": 0.5}])
def test_samplers_obey_the_laws(name):
    sampler = SAMPLERS.make(name)
    assert isinstance(sampler, ReplaySampler)
    check_sampler(sampler)
    assert type(SAMPLERS.make(SAMPLERS.describe(sampler))) is type(sampler)


class Anywhere(UniformSampler):
    """Draws slots that hold no step, too."""

    def draw(self, storage, count, rng):
        env = rng.integers(0, storage.num_envs, count)
        return env, storage.cursor[env] - rng.integers(0, storage.slots, count)


class OwnChance(UniformSampler):
    """Draws with a generator of its own."""

    def draw(self, storage, count, rng):
        return storage.sample_steps(count, np.random.default_rng())


class Forgetful(Prioritised):
    """Saves no priorities."""

    def state_dict(self):
        return {**super().state_dict(), "priority": np.zeros_like(self.priority)}


class Editor(UniformSampler):
    """Writes to the storage."""

    def draw(self, storage, count, rng):
        storage.reward[0] += 1
        return storage.sample_steps(count, rng)


class Weightless(PrioritisedSampler):
    """Gives steps no weight."""

    def importance(self, storage, env, position):
        return np.zeros(len(env), np.float32)


class PerRecord(PrioritisedSampler):
    """Gives a priority to each record of a window."""

    def window_priority(self, error, mask):
        return error


@pytest.mark.parametrize(
    ("sampler", "law"),
    [
        (Weightless(), "weighs what it draws"),
        (PerRecord(), "weighs what it draws"),
        (Anywhere(), "draws stored steps"),
        (OwnChance(), "depends on the generator alone"),
        (Editor(), "leaves the storage alone"),
        (Forgetful(), "goes on exactly"),
    ],
)
def test_broken_samplers_are_found(sampler, law):
    with pytest.raises(ValueError, match=law):
        check_sampler(sampler)


@pytest.mark.parametrize("goals", ["step", "window"])
@pytest.mark.parametrize("window", [1, 3])
def test_the_uniform_sampler_draws_as_a_buffer_without_one(window, goals):
    world = World("box", num_envs=2, window=window, goals=goals)
    named = world.new_replay(sampler="uniform")
    world.play(40, named)
    check_equal(world.replay.sample(50), named.sample(50))


def prioritised(world, rare, **options):
    """A buffer in which the steps at which `rare` is true are drawn more often."""
    replay = world.new_replay(sampler=Prioritised(), **options)
    world.play(60, replay)
    env, position = stored_steps(replay.storage)
    replay.sampler.grow(replay.storage)
    replay.sampler.update(env, position, np.where(rare(position), 9.0, 1.0))
    return replay


def test_priorities_decide_which_steps_are_drawn():
    world = World("box", num_envs=2, capacity=400)
    replay = prioritised(world, lambda position: position % 10 == 0)
    position = stored_steps(replay.storage)[1]
    rare = (position % 10 == 0).mean()
    expected = 9 * rare / (9 * rare + 1 - rare)
    batch = replay.sample(4000)
    assert (batch.position % 10 == 0).mean() == pytest.approx(expected, abs=0.03)


def test_a_batch_says_which_steps_its_numbers_belong_to():
    world = World("box", num_envs=2, capacity=400)
    replay = prioritised(world, lambda position: position < 0)
    batch = replay.sample(20)
    replay.update_priorities(batch, np.full(20, 1e9))
    again = replay.sample(500)
    drawn = set(zip(batch.env.tolist(), batch.position.tolist(), strict=True))
    assert set(zip(again.env.tolist(), again.position.tolist(), strict=True)) <= drawn


@pytest.mark.parametrize("goals", ["step", "window"])
def test_a_saved_buffer_keeps_its_priorities(goals):
    world = World("box", num_envs=2, capacity=400)
    options = {"window": 4, "goals": goals, "burn_in": 2}
    replay = prioritised(world, lambda position: position % 10 == 0, **options)
    replay.sample(10)
    resumed = world.new_replay(sampler=Prioritised(), **options)
    resumed.load_state_dict(replay.state_dict())
    check_equal(replay.sample(50), resumed.sample(50))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [NAME, {"name": NAME, "power": 0.5}, Prioritised(0.5)])
def test_an_agent_samples_with_it(sampler, tmp_path):
    agent = SAC("MultiInputPolicy", "rlkit/PlanarReach-v0", replay={"sampler": sampler}, seed=0)
    agent.learn(120)
    assert isinstance(agent.replay_buffer.sampler, Prioritised)
    assert len(agent.replay_buffer.sampler.slots) > 0
    agent.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip", agent.env, trust=True)
    assert loaded.replay_buffer.sampler.power == agent.replay_buffer.sampler.power


def test_an_unknown_sampler_is_named():
    with pytest.raises(ValueError, match=r"unknown sampler 'uniforn'.*'uniform'"):
        World("box").new_replay(sampler="uniforn")
