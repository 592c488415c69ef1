"""A lost worker ends the episode of its environment for a recurrent agent, and no other episode."""

import contextlib
import functools
import itertools

import numpy as np
import pytest
import torch
from faulty_env import AT, LENGTH, build, goal_walk

from rlkit.agents import SAC, TD3
from rlkit.vec.workers import ResilientVecEnv

ENVS, FAULTY = 3, 1
SETTINGS = {
    **{"net_arch": [8], "batch_size": 4, "window": 4, "seed": 0, "normalise": False},
    **{"encoder": {"name": "gru", "hidden": 6}, "buffer_size": 300, "device": "cpu"},
}


@contextlib.contextmanager
def training(algorithm, fault, marker, **options):
    """An agent in three environments, the second of which has a fault."""
    builds = [functools.partial(build, kind=goal_walk) for _ in range(ENVS)]
    builds[FAULTY] = functools.partial(build, fault, marker, kind=goal_walk)
    with contextlib.closing(ResilientVecEnv(builds, 0.7 if fault == "hang" else 10.0)) as venv:
        yield algorithm("MultiInputPolicy", venv, **{**SETTINGS, **options})


def act(agent, hidden_state, starts):
    starts = np.full(ENVS, starts) if np.isscalar(starts) else starts
    return [
        part.numpy() for part in agent.act(agent._last_obs, hidden_state, starts, explore=False)[1]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["exit", "hang", "raise"])
def test_the_hidden_state_of_its_environment_is_reset_and_no_other(tmp_path, fault):
    with training(SAC, fault, tmp_path / "marker", learning_starts=5) as agent:
        rounds = agent.iterate(200)
        with pytest.warns(UserWarning, match=f"environment {FAULTY} was replaced"):
            list(itertools.islice(rounds, AT))
        assert agent._last_episode_starts.tolist() == [False, True, False]
        used = act(agent, agent.hidden_state, agent._last_episode_starts)
        reset = act(agent, agent.learner.initial(ENVS), True)
        kept = act(agent, agent.hidden_state, False)
        for taken, fresh, continued in zip(used[1:], reset[1:], kept[1:], strict=True):
            np.testing.assert_allclose(taken[FAULTY], fresh[FAULTY], atol=1e-6)
            assert not np.allclose(continued[FAULTY], fresh[FAULTY], atol=1e-3)
            for other in (0, 2):
                np.testing.assert_allclose(taken[other], continued[other], atol=1e-6)
                assert not np.allclose(taken[other], fresh[other], atol=1e-3)
        for _ in rounds:
            pass
        assert agent._n_updates > 40
        assert all(torch.isfinite(view).all() for view in agent.learner.weights().values())


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_only_the_lost_step_is_missing_in_the_replay_buffer(tmp_path, algorithm):
    """The data of the other environments equal those of a run without a fault."""
    kept = {}
    for fault in ("exit", "none"):
        options = {"learning_starts": 10, "start": "stored", "gradient_steps": 0}
        with training(algorithm, fault, tmp_path / "marker", **options) as agent:
            agent.env.seed(3)
            with contextlib.ExitStack() as warned:
                if fault == "exit":
                    warned.enter_context(pytest.warns(UserWarning, match="was replaced"))
                agent.learn(ENVS * 2 * LENGTH)
            kept[fault] = agent
    faulty, sound = (kept[fault].replay_buffer.storage for fault in ("exit", "none"))
    rings = [
        [column.reshape(ENVS, storage.slots, *column.shape[1:]) for column in columns]
        for storage in (faulty, sound)
        for columns in [(*storage.hidden_state, storage.action, storage.reward, storage.truncated)]
    ]
    for one, other in zip(*rings, strict=True):
        np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
        np.testing.assert_array_equal(one[FAULTY, : AT - 2], other[FAULTY, : AT - 2])
    assert np.flatnonzero(rings[0][-1][FAULTY])[0] == AT - 2  # truncated after its last step
    has_action = faulty.has_action.reshape(ENVS, -1)[FAULTY]
    assert has_action[: AT + 1].tolist() == [True] * (AT - 1) + [False, True]
    begins = faulty.step_index.reshape(ENVS, -1)[FAULTY] == 0
    assert begins[[0, AT]].all()

    batch = kept["exit"].replay_buffer.sample(400)
    assert (batch.mask.sum(axis=1) > 0).all()
    arrays = kept["exit"].adapter.batch(batch)
    first_of_the_next = batch.is_first[:, 0] & (batch.position == AT)
    assert first_of_the_next.any()
    assert not batch.is_first[:, 1:][batch.mask].any()  # no window crosses the cut
    for name in ("hidden_state.0", "hidden_state.1"):
        assert not arrays[name][first_of_the_next].any()
        assert arrays[name][~batch.is_first[:, 0]].any(axis=1).all()


@pytest.mark.slow
def test_a_worker_lost_in_its_first_step_leaves_no_episode(tmp_path):
    with training(SAC, "raise at once", tmp_path / "marker", learning_starts=5) as agent:
        rounds = agent.iterate(120)
        with pytest.warns(UserWarning, match="was replaced"):
            next(rounds)
        storage = agent.replay_buffer.storage
        assert not storage.has_action.reshape(ENVS, -1)[FAULTY].any()
        assert agent._last_episode_starts.tolist() == [False, True, False]
        for _ in rounds:
            pass
        assert len(storage) == 120 - 1
