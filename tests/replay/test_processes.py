"""A replay buffer in other threads and processes."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from batches import MIXED, check_equal
from naive import World

OPTIONS = {"num_envs": 2, "capacity": 60, "hindsight": MIXED, "window": 3, "steps": 2}


@pytest.fixture(params=["memory", "disk"])
def world(request, tmp_path):
    """A world whose buffer has been filled beyond its capacity."""
    directory = tmp_path / "disk" if request.param == "disk" else None
    made = World("pixels", directory=directory, **OPTIONS)
    made.play(80)
    return made


def sample_and_add(replay, results):
    """What runs in another process: a sample, a step, and what is stored after it."""
    first = replay.sample(30)
    storage = replay.storage
    observation = {key: rows[: storage.num_envs] for key, rows in storage.observation.items()}
    observation["desired_goal"] = storage.goals.stored(storage.goal_id[: storage.num_envs])
    flags = np.zeros(storage.num_envs, np.bool_)
    storage.cut()
    for _ in range(storage.slots):
        replay.add(observation, storage.action[:2], storage.reward[:2], flags, flags, observation)
    results.put((first, replay.sample(30)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_samples_and_adds_without_changing_this_one(world, method):
    replay, context = world.replay, multiprocessing.get_context(method)
    state = pickle.dumps(replay.state_dict())
    results = context.Queue()
    process = context.Process(target=sample_and_add, args=(replay, results))
    process.start()
    first, second = results.get(timeout=60)
    process.join()
    assert process.exitcode == 0
    assert len(second) == 30
    assert pickle.dumps(replay.state_dict()) == state, "what is stored here stays as it was"
    check_equal(replay.sample(30), first)


def test_a_pickled_buffer_goes_on_by_itself(world):
    replay = world.replay
    copied = pickle.loads(pickle.dumps(replay))
    world.play(30, copied)
    check_equal(replay.sample(50), copied.sample(50))
    copied.storage.cut()
    copied.storage.columns["observation"].put(np.arange(3), 0)
    assert replay.storage.columns["observation"].take(np.arange(3)).any()
    assert not copied.storage.observation["observation"][:3].any()


def test_another_thread_samples_the_same(world):
    replay, drawn = world.replay, []
    copied = pickle.loads(pickle.dumps(replay))
    thread = threading.Thread(target=lambda: drawn.append(replay.sample(50)))
    thread.start()
    thread.join()
    check_equal(drawn[0], copied.sample(50))
