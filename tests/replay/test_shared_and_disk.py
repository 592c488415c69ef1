"""Pictures stored once, in memory or on disk: the same batches bit for bit."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from batches import MIXED, any_world, check_equal
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import GOALS, KINDS, World, observation_space
from test_sb3 import add, buffer_of

from rlkit.io import serialisation
from rlkit.io.checkpoint import read_checkpoint, write_checkpoint
from rlkit.replay import columns
from rlkit.replay.columns import Column

plays = st.lists(st.tuples(st.integers(1, 25), st.booleans()), min_size=1, max_size=3)


def worlds(kinds):
    return any_world(
        kinds,
        new_goal=st.sampled_from([0.0, 0.2, 1.0]),
        hindsight=st.just({**MIXED, "desired": 1}),
        window=st.sampled_from([None, 1, 3]),
        goals=st.sampled_from(["step", "window"]),
        previous_action=st.booleans(),
        hidden_state=st.sampled_from([(), ((2,),)]),
        steps=st.integers(1, 3),
    )


@pytest.fixture(params=["warm", "cold"])
def disk(request, monkeypatch):
    """Whether reads seem to reach the disk, and so are prepared by reading ahead."""
    blocks = itertools.count() if request.param == "cold" else itertools.repeat(0)
    monkeypatch.setattr(columns, "_blocks_read", blocks.__next__)
    return request.param


def play_alike(world, replays, plays):
    """Plays into all of them, takes back some steps, and compares what they give."""
    for steps, retracts in plays:
        world.play(steps, *replays)
        every = (world.replay, *replays)
        if retracts:
            for env in np.flatnonzero(world.replay.storage.begins).tolist():
                for replay in every:
                    replay.storage.retract(env)
        compare(every)


def compare(replays):
    first, *others = replays
    if len(first) == 0:
        return
    for _ in range(2):
        batch = first.sample(24)
        for other in others:
            check_equal(batch, other.sample(24))


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(worlds(sorted(GOALS)), plays)
def test_shared_equals_unshared(world, plays):
    world.replay = world.new_replay(share=False)
    shares = ["auto"] + [True] * (world.kind == "pixels")
    play_alike(world, [world.new_replay(share=share) for share in shares], plays)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["warm", "cold"], indirect=True)
def test_disk_equals_memory(disk):
    @settings(max_examples=40, deadline=None)
    @given(worlds(KINDS), plays)
    def check(world, plays):
        with tempfile.TemporaryDirectory() as folder:
            others = [world.new_replay(directory=folder)]
            if world.kind == "pixels":
                others.append(world.new_replay(directory=folder, share=False))
            play_alike(world, others, plays)
            assert os.listdir(folder) == []  # whatever ends the process, nothing is left behind

    check()


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(worlds(("image", "pixels")), plays, plays)
def test_a_restored_replay_on_disk_goes_on_as_the_saved_one(world, before, after):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialisation, "MAPPED_BYTES", 1024)
        folder = Path(name)
        world.replay = world.new_replay(directory=folder / "frames")
        play_alike(world, (), before)
        write_checkpoint(folder / "step-1", {"replay": world.replay.state_dict()})
        restored = [world.new_replay(directory=place, seed=9) for place in (folder, None)]
        for replay in restored:
            replay.load_state_dict(read_checkpoint(folder / "step-1")["replay"])
        compare((world.replay, *restored))
        play_alike(world, restored, after)


def test_pictures_are_stored_and_saved_once():
    world = World("pixels")
    world.play(20)
    storage = world.replay.storage
    assert storage.observation["achieved_goal"] is storage.observation["observation"]
    columns = world.replay.state_dict()["storage"]["columns"]
    assert "observation.observation" in columns
    assert "observation.achieved_goal" not in columns
    batch = world.replay.sample(8)
    assert list(batch.observation) == ["observation", "achieved_goal"]
    assert batch.observation["achieved_goal"] is batch.observation["observation"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pixels"])
def test_what_is_no_picture_is_not_shared_by_itself(kind):
    assert World(kind).replay.storage.aliases == {}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_difference_is_refused_before_anything_is_stored(when):
    world = World("pixels")
    world.play(3)
    saved = copy.deepcopy(world.replay.state_dict())
    step = world.step()
    keyed = step[0 if when == "before" else 5]
    keyed["achieved_goal"] = keyed["achieved_goal"].copy()
    keyed["achieved_goal"][1, 1, 0, 2] ^= 1
    with pytest.raises(ValueError, match=r"'achieved_goal' and 'observation' .* share=False"):
        world.replay.add(*step)
    np.testing.assert_equal(world.replay.state_dict(), saved)
    unshared = world.new_replay(share=False)
    unshared.add(*step)
    assert len(unshared) == world.num_envs


@pytest.mark.parametrize(
    ("kind", "share", "message"),
    [
        ("box", True, "share=True stores .* but their spaces are Box.*set share=False"),
        ("plain", True, "share=True stores .* but their spaces are None"),
        ("pixels", "yes", "share must be .* got 'yes'"),
    ],
)
def test_sharing_what_differs_is_refused(kind, share, message):
    with pytest.raises(ValueError, match=message):
        World(kind, share=share)


@pytest.mark.parametrize("share", [True, False])
def test_a_replay_saved_with_another_sharing_is_refused(share):
    world = World("pixels", share=share)
    world.play(5)
    other = world.new_replay(share=not share)
    with pytest.raises(ValueError, match=f"has share={share}"):
        other.load_state_dict(world.replay.state_dict())
    assert len(other) == 0


def test_the_buffer_for_stable_baselines3_shares_too():
    world = World("pixels", num_envs=2, hindsight="future")
    shared, unshared = buffer_of(world), buffer_of(world, share=False)
    for _ in range(60):
        step = world.step()
        add(shared, step)
        add(unshared, step)
    assert len(shared.replay) == len(unshared.replay) > 0
    one, two = shared.sample(32), unshared.sample(32)
    for side in ("observations", "next_observations"):
        for key, value in getattr(one, side).items():
            np.testing.assert_array_equal(value, getattr(two, side)[key])
    for buffer, expected in ((shared, {"achieved_goal": "observation"}), (unshared, {})):
        buffer.reset()
        assert buffer.replay.storage.aliases == expected


@pytest.mark.parametrize("rows", [[], [5], [5, 6, 7, 5, 4, 9, 0], [[1, 2], [9, 0]]])
@pytest.mark.parametrize("space", [observation_space("image"), spaces.Discrete(9), GOALS["box"]])
def test_rows_are_read_as_from_memory(tmp_path, disk, rows, space):
    columns = [Column(10, space, place) for place in (None, tmp_path)]
    values = np.random.default_rng(0).integers(0, 200, columns[0].array.shape)
    for kept in columns:
        kept.put(np.arange(10), values)
    for _ in range(2):
        one, other = (kept.take(np.array(rows, np.int64)) for kept in columns)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def resident():
    """Kilobytes of files that are resident in this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1])
    raise AssertionError("no RssFile")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' own figures")
def test_what_is_resident_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "MAX_MAPPED", 2**18)
    rows = Column(2000, spaces.Box(0, 255, (64, 64, 3), np.uint8), tmp_path)
    before, most = resident(), 0
    for first in range(0, 2000, 20):
        rows.put(np.arange(first, first + 20), first % 251)
        most = max(most, resident())
    rng = np.random.default_rng(0)
    for _ in range(200):
        picked = rng.integers(0, 2000, 20)
        np.testing.assert_array_equal(rows.take(picked)[:, 5, 5, 1], picked // 20 * 20 % 251)
        most = max(most, resident())
    assert most - before < 2**13 < rows.array.nbytes / 1024 / 2
    assert rows.array[:, 0, 0, 0].any()
    assert resident() - before > 2**13  # so the measurement can show it
    rows.put(np.array([0]), 1)  # what a checkpoint has read is given back
    assert resident() - before < 2**13


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' own figures")
def test_a_file_is_gone_with_its_replay(tmp_path):
    def mapped():
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    world = World("pixels", directory=tmp_path / "new" / "folder")
    world.play(5)
    assert os.listdir(tmp_path / "new" / "folder") == []
    assert mapped()
    del world
    gc.collect()
    assert not mapped()


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"cannot keep a replay buffer in .*file.*local disk"):
            World("pixels", directory=place)


def test_a_disk_that_fills_up_is_reported(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"has 1,000 bytes left, and 1,200 are needed"):
        Column(100, observation_space("image"), tmp_path)
    Column(50, observation_space("image"), tmp_path)
