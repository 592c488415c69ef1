"""Images read through an encoder, against images that are all encoded directly."""

from __future__ import annotations

import numpy as np
import pytest
from batches import MIXED, any_world, check_equal
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import World, observation_space

from rlkit.goals import DistanceRule
from rlkit.replay import (
    EpisodeStorage,
    LatentColumn,
    LatentEncoder,
    ReplayBuffer,
    estimate_footprint,
)
from rlkit.replay.latent_cache import LatentCache, LatentGoalTable

IMAGE = spaces.Box(0, 255, (2, 2, 3), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
WIDTHS = {
    "pixels": {"observation": 3, "achieved_goal": 4, "desired_goal": 4},
    "image": {"observation": 3},
    "dict": {"image": 2},
}


class Mean:
    """The mean colour, which another version stretches and moves, and the sum of colours."""

    def __init__(self, kind="pixels", error=0.0):
        self.widths, self.version, self.error = WIDTHS[kind], 1, error
        self.encoded = 0

    def encode(self, images):
        assert len(images) > 0
        self.encoded += len(images)
        return self.direct(images)[..., : max(self.widths.values())] + np.float32(self.error)

    def direct(self, images):
        """Of images with any leading axes."""
        colour = images.astype(np.float32).mean(axis=(-3, -2))
        colour = colour * self.version + self.version
        return np.concatenate([colour, colour.sum(axis=-1, keepdims=True)], axis=-1)


def encoded(batch, encoder):
    """A batch of images, all of them encoded now."""
    observation = {
        key: encoder.direct(value)[..., : encoder.widths[key]] if key in encoder.widths else value
        for key, value in batch.observation.items()
    }
    goal = batch.desired_goal
    return batch.replace(
        observation=observation, desired_goal=None if goal is None else encoder.direct(goal)
    )


worlds = any_world(
    WIDTHS,
    capacity=st.sampled_from([1, 7, 30, 200]),
    new_goal=st.sampled_from([0.0, 0.2, 1.0]),
    hindsight=st.just({**MIXED, "desired": 1}),
    window=st.sampled_from([None, 1, 3]),
    goals=st.sampled_from(["step", "window"]),
    steps=st.integers(1, 3),
    share=st.sampled_from(["auto", False]),
)
events = st.lists(
    st.tuples(
        st.integers(1, 40), st.sampled_from(["nothing", "retract", "version", "save", "cut"])
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(worlds, events)
def test_batches_are_those_of_images_encoded_directly(world, events):
    check_batches(world, events, None)


@settings(max_examples=10, deadline=None)
@given(worlds, events)
def test_images_on_disk_become_the_same_latents(tmp_path_factory, world, events):
    check_batches(world, events, tmp_path_factory.getbasetemp())


def check_batches(world, events, directory):
    encoder = Mean(world.kind)
    cached = world.new_replay(latent_encoder=encoder, directory=directory)
    for steps, event in events:
        world.play(steps, cached)
        if event == "version":
            encoder.version += 1
        for replay in (world.replay, cached):
            if event == "retract" and replay.storage.begins[0]:
                replay.storage.retract(0)
            elif event == "cut":
                replay.storage.cut()
        if event == "save":
            state = cached.state_dict()
            fresh = world.new_replay(latent_encoder=encoder)
            fresh.load_state_dict(state)
            cached = fresh
        if event in ("retract", "cut"):
            world.envs = [[*episodes[:-1]] for episodes in world.envs]  # then a new episode begins
        if len(cached) > 0:
            images, latents = world.replay.sample(20), cached.sample(20)
            check_equal(encoded(images, encoder), latents)


def test_an_image_is_encoded_once_per_version_and_only_if_it_is_read():
    encoder = Mean()
    latents = LatentCache(10, encoder)
    images = np.random.default_rng(0).integers(0, 256, (10, 2, 2, 3), np.uint8)

    def take(*rows):
        before = encoder.encoded
        rows = np.array(rows)
        taken = latents.take(rows, lambda rows: images[rows])
        np.testing.assert_array_equal(taken, encoder.direct(images[rows]))
        return encoder.encoded - before

    assert take([1, 2], [2, 1]) == 2
    assert take(2, 3) == 1
    latents.invalidate(np.array([2]))
    assert take(1, 2, 3) == 1
    encoder.version = 2
    assert take(3, 3) == 1
    assert take(1, 2, 3) == 2
    latents.invalidate()
    assert take(1, 2) == 2
    assert not latents.vectors[[0, *range(4, 10)]].any()


def test_many_images_are_read_a_part_at_a_time():
    encoder, sizes = Mean(), []
    column = LatentColumn(3000, IMAGE, None, encoder)
    column.put(np.arange(3000), np.random.default_rng(0).integers(0, 256, (3000, 2, 2, 3)))
    encode = encoder.encode
    encoder.encode = lambda images: sizes.append(len(images)) or encode(images)
    taken = column.take(np.arange(3000)[::-1])
    np.testing.assert_array_equal(taken, encoder.direct(column.array[::-1]))
    assert len(sizes) > 1
    assert sum(sizes) == 3000


def test_a_table_of_goals_grows_with_its_latents():
    encoder = Mean()
    table = LatentGoalTable(IMAGE, encoder, capacity=2)
    goals = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 3), np.uint8)
    for i, goal in enumerate(goals):
        ids = table.append(goal[None])
        np.testing.assert_array_equal(table.take(ids), encoder.direct(goal[None]))
        encoder.version += i % 2
        every = np.arange(i + 1)
        np.testing.assert_array_equal(table.take(every), encoder.direct(goals[: i + 1]))
        np.testing.assert_array_equal(table.stored(every), goals[: i + 1])


def test_saved_latents_are_kept_to_the_last_bit():
    """Rounding depends on the batch, so a resumed training must not encode again."""
    world = World("pixels", capacity=60, hindsight=MIXED)
    cached = world.new_replay(latent_encoder=Mean())
    world.play(40, cached)
    cached.sample(200)
    other = Mean(error=0.5)
    resumed = world.new_replay(latent_encoder=other)
    resumed.load_state_dict(cached.state_dict())
    rng = cached.rng.bit_generator.state
    before, now = cached.sample(100), resumed.sample(100)
    known = np.isclose(before.observation["observation"], now.observation["observation"])
    assert known.mean() > 0.9
    cached.rng.bit_generator.state = resumed.rng.bit_generator.state = rng
    resumed.invalidate_latents()
    now = resumed.sample(100)
    for one, two in (
        (before.observation["observation"], now.observation["observation"]),
        (before.desired_goal, now.desired_goal),
    ):
        np.testing.assert_allclose(one + 0.5, two)


def test_a_replay_without_latents_is_no_replay_with_them():
    world = World("pixels", capacity=20)
    world.play(10)
    with pytest.raises(ValueError, match=r"holds .*, this one .*latent\.observation"):
        world.new_replay(latent_encoder=Mean()).load_state_dict(world.replay.state_dict())


@pytest.mark.parametrize("kind", sorted(WIDTHS))
def test_an_estimate_counts_images_and_latents(kind):
    encoder, space = Mean(kind), observation_space(kind)
    assert isinstance(encoder, LatentEncoder)
    storage = EpisodeStorage(space, ACTIONS, 5000, 2, latent_encoder=encoder)
    arrays = {name: array.nbytes for name, array in storage._rings().items()}
    size = 2 * storage.slots
    goals = 0 if storage.goals is None else -(-size // 50) * (12 + 4 * 4 + 4)
    assert (
        estimate_footprint(space, ACTIONS, 5000, 2, latent_encoder=encoder).total
        == sum(arrays.values()) + goals
    )
    plain = estimate_footprint(space, ACTIONS, 5000, 2).total
    assert sum(arrays.values()) + goals - plain > size * 4


def test_an_encoder_of_what_is_not_there_is_refused():
    encoder = Mean("dict")
    with pytest.raises(ValueError, match=r"\['image'\].*\['observation'\]"):
        ReplayBuffer(IMAGE, ACTIONS, 10, latent_encoder=encoder)


# Rewards that an encoder's version decides


def recomputed(window, steps=1, **options):
    """A replay buffer whose rule reads latents, which are scaled by the version."""
    encoder = Mean()
    world = World("pixels", 2, 80, end=0.1, new_goal=0.0)
    world.rule = DistanceRule(4.5)
    replay = world.new_replay(
        latent_encoder=encoder,
        recompute_rewards=True,
        window=window,
        steps=steps,
        **{"hindsight": MIXED} | options,
    )
    world.rule = None  # as the rule of its own replay buffer reads images
    return world, replay, encoder


@pytest.mark.parametrize("goals", ["step", "window"])
@pytest.mark.parametrize("window", [1, 4, None])
def test_original_goals_are_rewarded_by_the_current_version(window, goals):
    world, replay, encoder = recomputed(window, goals=goals)
    for _ in range(60):
        replay.add(*world.step())
    shares = []
    for version in (1, 3):
        encoder.version = version
        batch = replay.sample(100)
        achieved = batch.observation["achieved_goal"][:, 1:]
        distance = np.linalg.norm(achieved - batch.desired_goal, axis=-1)
        earned = -(distance >= 4.5).astype(np.float32)
        np.testing.assert_array_equal(batch.reward[batch.mask], earned[batch.mask])
        original = batch.mask & ~batch.relabelled
        assert original.any()
        assert batch.relabelled.any()
        shares.append(earned[original].mean())
    assert shares[1] < shares[0], "stretched latents are further apart"


def test_previous_rewards_are_those_of_the_present_version():
    world, replay, encoder = recomputed(5, previous_reward=True, burn_in=2, hindsight="original")
    for _ in range(60):
        replay.add(*world.step())
    rewards = set()
    for version in (1, 3):
        encoder.version = version
        batch = replay.sample(100)
        achieved, goal = batch.observation["achieved_goal"], batch.desired_goal[:, :1]
        earned = -(np.linalg.norm(achieved - goal, axis=-1) >= 4.5).astype(np.float32)
        inside = np.ones(batch.is_first.shape, np.bool_)
        inside[:, 1:] = batch.mask
        inside[:, : batch.burn_in + 1] = True
        expected = np.where(batch.is_first, 0.0, earned)
        np.testing.assert_array_equal(batch.previous_reward[inside], expected[inside])
        rewards |= set(batch.previous_reward[~batch.is_first & inside].tolist())
        assert not batch.relabelled.any()
    assert rewards == {-1.0, 0.0}
