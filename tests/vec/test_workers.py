import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from faulty_env import AT, LENGTH, RULE, Walk, build, goal_walk
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.experiment.recipe import make_recipe
from rlkit.experiment.run_logger import read_metrics
from rlkit.experiment.train import train
from rlkit.vec.env_state import set_vec_env_state, vec_env_state
from rlkit.vec.workers import MOST_LOSSES, ResilientVecEnv

REASONS = {
    "exit": r"its process ended with code 3",
    "hang": r"it gave no answer for [0-9.]+ s",
    "raise": r"Traceback[\s\S]*in fail[\s\S]*OSError: the simulation blew up",
}


def factory(*args, **kwargs):
    return functools.partial(build, *args, **kwargs)


@pytest.fixture
def workers():
    """Builds vector environments; closes them and checks that no process is left."""
    built = []

    def start(factories, timeout_s=10.0, seed=3):
        venv = ResilientVecEnv(factories, timeout_s)
        built.append(venv)
        venv.seed(seed)
        return venv

    yield start
    for venv in built:
        venv.close()
        assert not any(worker.process.is_alive() for worker in venv._workers)


def actions(venv, seed=0):
    rng = np.random.default_rng(seed)
    while True:
        yield rng.uniform(-1, 1, (venv.num_envs, 2)).astype(np.float32)


def steps(venv, count, seed=0, start=False):
    if start:
        venv.reset()
    return [venv.step(action) for _, action in zip(range(count), actions(venv, seed), strict=False)]


def without_time(info):
    episode = {key: info["episode"][key] for key in "rl"} if "episode" in info else None
    kept = {key: value for key, value in info.items() if key != "terminal_observation"}
    return {**kept, "episode": episode}


def assert_same(one, two):
    if isinstance(two, dict):
        assert one.keys() == two.keys()
        for key in two:
            assert_same(one[key], two[key])
    else:
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype


def assert_same_steps(ours, theirs, rows=slice(None)):
    for one, two in zip(ours, theirs, strict=True):
        for mine, yours in zip(one[:3], two[:3], strict=True):
            assert_same(mine[rows], yours[rows])
        for mine, yours in zip(one[3][rows], two[3][rows], strict=True):
            assert without_time(mine) == without_time(yours)
            assert ("terminal_observation" in mine) == ("terminal_observation" in yours)
            if "terminal_observation" in yours:
                assert_same(mine["terminal_observation"], yours["terminal_observation"])


@pytest.mark.slow
def test_without_losses_it_equals_environments_in_this_process(workers):
    builds = [factory(), factory(render_mode=None)]
    venv, reference = workers(builds), DummyVecEnv(builds)
    reference.seed(3)
    for one in (venv, reference):
        one.set_options({"length": 2})
    assert_same(venv.reset(), reference.reset())
    assert venv.reset_infos == reference.reset_infos
    assert_same_steps(steps(venv, 20), steps(reference, 20))
    assert venv.reset_infos == reference.reset_infos
    assert_same(venv.reset(), reference.reset())
    assert venv.workers_lost == 0


@pytest.mark.slow
def test_goal_observations_equal_those_of_this_process(workers):
    builds = [factory(kind=goal_walk)]
    venv, reference = workers(builds), DummyVecEnv(builds)
    reference.seed(3)
    assert_same(venv.reset(), reference.reset())
    for one, two in zip(steps(venv, 20), steps(reference, 20), strict=True):
        assert_same(one[0], two[0])


@pytest.mark.slow
def test_attributes_methods_and_pictures(workers):
    venv = workers([factory(render_mode="rgb_array")] * 2)
    venv.reset()
    assert venv.get_attr("label") == ["walk", "walk"]
    venv.set_attr("label", "mine", indices=1)
    assert venv.get_attr("label") == ["walk", "mine"]
    assert venv.has_attr("label")
    assert not venv.has_attr("no_such_attribute")
    assert venv.env_is_wrapped(Monitor, indices=[0]) == [True]
    assert venv.render().shape == (8, 4, 3)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        venv.get_attr("no_such_attribute")
    with pytest.raises(RuntimeError, match=r"(?s)environment 0.*'refuse'.*OSError: not today"):
        venv.env_method("refuse", indices=0)
    steps(venv, 2)
    assert venv.workers_lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", REASONS)
def test_a_lost_worker_costs_its_episode_and_no_other(workers, tmp_path, fault):
    outcomes = []
    for marker in ("one", "two"):
        venv = workers([factory(), factory(fault, tmp_path / marker)], timeout_s=0.7)
        venv.reset()
        with pytest.warns(UserWarning, match=rf"environment 1 was [\s\S]*{REASONS[fault]}"):
            outcomes.append(steps(venv, 20))
        assert venv.workers_lost == 1
    ours = outcomes[0]
    before, (observation, reward, done, infos) = ours[AT - 2], ours[AT - 1]
    lost = infos[1].pop("worker_lost")
    assert re.search(REASONS[fault], lost)
    assert "worker_lost" not in infos[0]
    assert done.tolist() == [False, True]
    assert infos[1]["TimeLimit.truncated"] is True
    assert "episode" not in infos[1]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], before[0][1])
    assert reward[1] == before[1][1]
    assert not np.array_equal(observation[1], before[0][1])
    ends = [i for i, step in enumerate(ours) if step[2][1]]
    assert ends == [AT - 1, AT - 1 + LENGTH]
    assert ours[ends[1]][3][1]["episode"]["l"] == LENGTH
    outcomes[1][AT - 1][3][1].pop("worker_lost")
    assert_same_steps(ours, outcomes[1])  # the seed of the replacement is derived

    reference = DummyVecEnv([factory(), factory()])
    reference.seed(3)
    reference.reset()
    undisturbed = steps(reference, 20)
    assert_same_steps(ours, undisturbed, rows=slice(0, 1))
    assert_same_steps(ours[: AT - 1], undisturbed[: AT - 1])


@pytest.mark.slow
def test_the_reward_of_a_lost_step_is_what_the_goal_rule_gives(workers, tmp_path):
    venv = workers([factory("exit", tmp_path / "marker", kind=goal_walk)])
    venv.reset()
    with pytest.warns(UserWarning, match="ended with code 3"):
        taken = steps(venv, AT)
    _, reward, _, infos = taken[-1]
    final = infos[0]["terminal_observation"]
    assert_same(final, {key: part[0] for key, part in taken[-2][0].items()})
    achieved, desired = final["achieved_goal"], final["desired_goal"]
    np.testing.assert_array_equal(reward, RULE.reward(achieved[None], desired[None]))


@pytest.mark.slow
def test_a_worker_killed_in_its_first_step_gets_no_reward_from_the_episode_before(workers):
    venv = workers([factory()])
    venv.reset()
    assert steps(venv, LENGTH)[-1][2][0]
    os.kill(venv._workers[0].process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="ended by signal 9"):
        _, reward, done, _ = venv.step(np.zeros((1, 2), np.float32))
    assert done[0]
    assert reward[0] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["raise at once", "raise in reset"])
def test_an_environment_that_always_fails_ends_the_run(workers, fault):
    venv = workers([factory(), factory(fault)])
    warnings.simplefilter("ignore")  # until the end of the test
    with pytest.raises(RuntimeError, match=rf"(?s)environment 1 was lost {MOST_LOSSES} .*OSError"):
        steps(venv, MOST_LOSSES + 1, start=True)


@pytest.mark.slow
def test_an_environment_that_cannot_be_built_says_why(workers):
    with pytest.raises(RuntimeError, match=r"(?s)environment 1 cannot be built.*no such simulator"):
        workers([factory(), factory("unbuildable")])
    with pytest.raises(ValueError, match=r"timeout_s = 0"):
        workers([factory()], timeout_s=0)
    with pytest.raises(ValueError, match="got 0 environments"):
        workers([])


@pytest.mark.slow
def test_a_failing_reset_is_tried_again(workers, tmp_path):
    venv = workers([factory("raise in reset", tmp_path / "marker")])
    with pytest.warns(UserWarning, match="no start"):
        venv.reset()
    assert not any(step[2][0] for step in steps(venv, LENGTH - 1))


@pytest.mark.slow
def test_closing_does_not_wait_for_an_environment_that_hangs(workers):
    venv = workers([factory("hang")], timeout_s=1000)
    venv.reset()
    steps(venv, AT - 1)
    venv.step_async(np.zeros((1, 2), np.float32))
    began = time.monotonic()
    venv.close()
    assert time.monotonic() - began < 5
    venv.close()


@pytest.mark.slow
def test_results_of_abandoned_commands_are_dropped(workers):
    venv, reference = workers([factory()]), DummyVecEnv([factory()])
    reference.seed(3)
    for one in (venv, reference):
        one.reset()
    venv.step_async(np.zeros((1, 2), np.float32))
    reference.step(np.zeros((1, 2), np.float32))
    assert_same(venv.reset(), reference.reset())


@pytest.mark.slow
def test_workers_ignore_signals_to_the_process_group(workers):
    venv = workers([factory()])
    venv.reset()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(venv._workers[0].process.pid, number)
    steps(venv, 3)
    assert venv.workers_lost == 0


ORPHANS = """
import functools, os, signal, sys
import numpy as np
from faulty_env import Walk
from rlkit.vec.workers import ResilientVecEnv

if __name__ == "__main__":
    venv = ResilientVecEnv([functools.partial(Walk, "hang"), Walk], 1000.0)
    venv.reset()
    for _ in range(4):
        venv.step(np.zeros((2, 2), np.float32))
    venv.step_async(np.zeros((2, 2), np.float32))
    print(*[worker.process.pid for worker in venv._workers], flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_no_process_outlives_its_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    parents = {
        end: subprocess.Popen(
            [sys.executable, str(script), end],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for end in ("kill", "exit")
    }
    pids = []
    for parent in parents.values():
        pids += [int(word) for word in parent.communicate(timeout=120)[0].split()]
    assert len(pids) == 4
    assert [parent.returncode for parent in parents.values()] == [-signal.SIGKILL, 0]
    deadline = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


@pytest.mark.slow
def test_a_state_continues_bit_for_bit(workers, tmp_path):
    builds = [factory(), factory()]
    one, two = workers(builds), workers(builds, seed=77)
    for venv in (one, two):
        venv.reset()
    steps(one, 11)
    states = vec_env_state(one)
    set_vec_env_state(two, states)
    assert_same_steps(steps(one, 20, seed=1), steps(two, 20, seed=1))
    assert json.dumps([state is None for state in states]) == "[false, false]"


@pytest.mark.slow
def test_a_loss_after_a_restored_state_is_the_same_loss(workers):
    one, two = workers([factory()]), workers([factory()], seed=77)
    for venv in (one, two):
        venv.reset()
    steps(one, 3)
    set_vec_env_state(two, vec_env_state(one))
    outcomes = []
    for venv in (one, two):
        os.kill(venv._workers[0].process.pid, signal.SIGKILL)
        with pytest.warns(UserWarning, match="ended by signal 9"):
            outcomes.append(steps(venv, 5))
    assert_same_steps(*outcomes)
    assert outcomes[0][0][2][0]


@pytest.mark.slow
def test_a_worker_lost_between_steps_ends_its_episode_in_the_next(workers):
    venv = workers([factory()] * 2)
    venv.reset()
    before = steps(venv, 2)[-1]
    os.kill(venv._workers[1].process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="environment 1 was replaced"):
        assert venv.get_attr("label") == ["walk", "walk"]
    assert vec_env_state(venv) == [None, None]
    _, _, done, infos = venv.step(np.zeros((2, 2), np.float32))
    assert done.tolist() == [False, True]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], before[0][1])
    assert None not in vec_env_state(venv)


@pytest.mark.slow
def test_environments_without_a_state_have_none(workers):
    venv = workers([Walk])
    venv.reset()
    assert venv.get_state() is None
    with pytest.raises(ValueError, match="cannot restore a state"):
        venv.set_state({"envs": []})


@pytest.mark.slow
def test_an_agent_continues_after_the_loss(workers, tmp_path):
    venv = workers([factory(), factory("exit", tmp_path / "marker")])
    agent = SAC("MlpPolicy", venv, seed=0, net_arch=[8], batch_size=8, learning_starts=4)
    with pytest.warns(UserWarning, match="environment 1 was replaced"):
        starts = {step: agent._last_episode_starts.tolist() for step in agent.iterate(40)}
    assert starts[2 * AT] == [False, True]
    assert agent.num_timesteps == 40
    storage = agent.replay_buffer.storage
    truncated = storage.truncated.reshape(2, storage.slots)
    assert np.flatnonzero(truncated[0]).tolist() == [7, 16]
    assert np.flatnonzero(truncated[1])[0] == AT - 2  # the lost step itself is not stored


@pytest.mark.slow
def test_a_recipe_continues_after_the_loss_and_counts_it(tmp_path):
    recipe = make_recipe(
        {
            "env": "faulty_env:FaultyWalk-v0",
            "steps": 60,
            "num_envs": 2,
            "goals": False,
            "check_env": False,  # it steps the environment in this process
            "subprocess": True,
            "worker_timeout_s": 5,
            "env_options": {"fault": "exit", "marker": str(tmp_path / "marker")},
            "agent_options": {"net_arch": [8], "batch_size": 8, "learning_starts": 4},
            "evaluation": {"every": 0, "final_episodes": 1},
            "pictures": {"video_episodes": 0},
        }
    )
    with pytest.warns(UserWarning, match="was replaced and its episode cut"):
        outcome = train(recipe, make, tmp_path / "run")
    assert outcome["steps"] == 60
    assert read_metrics(tmp_path / "run")[-1]["env/workers_lost"] == 1
