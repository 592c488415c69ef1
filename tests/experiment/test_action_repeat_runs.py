"""Runs whose actions are held: killed, resumed, evaluated, recorded, checked."""

import os
import signal

import numpy as np
import pytest

from rlkit.agents import SAC
from rlkit.envs.make import make
from rlkit.experiment import env_check, video
from rlkit.experiment.recipe import load_recipe, make_recipe
from rlkit.experiment.run_folder import RunFolder
from rlkit.experiment.run_logger import read_metrics
from rlkit.experiment.session import Session
from rlkit.experiment.train import resume, train
from rlkit.goals import ActionRepeat, make_repeating
from rlkit.io.checkpoint import read_checkpoint, saved_steps

CONTENT = {
    "env": "rlkit/PointMaze-Open-v0",
    "steps": 240,
    "num_envs": 2,
    "action_repeat": 3,
    "check_env": False,
    "device": "cpu",
    "agent_options": {
        "net_arch": [8],
        "batch_size": 8,
        "learning_starts": 60,
        "random_fraction": 0.5,
        "random_action_repeat": 4,
    },
    "evaluation": {"every": 60, "episodes": 3, "final_episodes": 4},
    "checkpoint": {"every": 60},
    "pictures": {"video_episodes": 0},
}


def recipe(*settings, **changes):
    return make_recipe({**CONTENT, **changes}, settings)


def newest(path):
    state = read_checkpoint(path / "checkpoints" / f"step-{saved_steps(path / 'checkpoints')[-1]}")
    curves = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(path)
    ]
    return state, curves


@pytest.mark.slow
def test_a_run_stopped_between_checkpoints_resumes_to_the_same_end(tmp_path, monkeypatch):
    train(recipe(), make, tmp_path / "whole")
    iterate = SAC.iterate

    def interrupted(self, *arguments, **options):
        for step in iterate(self, *arguments, **options):
            if step == 150:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(SAC, "iterate", interrupted)
        assert train(recipe(), make, tmp_path / "run")["steps"] == 150
    with pytest.raises(ValueError, match="action_repeat cannot change from 3 to 2"):
        resume(tmp_path / "run", make, settings=["action_repeat=2"])
    resume(tmp_path / "run", make)
    (whole, curves), (resumed, same) = newest(tmp_path / "whole"), newest(tmp_path / "run")
    assert whole["weights"].keys() == resumed["weights"].keys()
    for name, tensor in whole["weights"].items():
        np.testing.assert_array_equal(tensor, resumed["weights"][name])
    assert curves == same
    for name, held in whole["training"]["held_actions"].items():
        np.testing.assert_array_equal(held, resumed["training"]["held_actions"][name])
    evaluations = RunFolder(tmp_path / "run").evaluations()
    assert [row["step"] for row in evaluations] == [60, 120, 180, 240]
    assert {row["length_mean"] for row in evaluations} == {50.0}  # steps of the environment
    again = Session.load(RunFolder(tmp_path / "run"), make)[0].agent
    assert (again.action_repeat, again.num_timesteps) == (3, 240)


def test_a_recipe_counts_steps_of_the_environment():
    session = Session.build(recipe("agent_options.update_ratio=0.5"), make)
    steps = list(session.agent.iterate(120))
    assert steps == list(range(6, 121, 6))
    assert session.agent._n_updates == 30
    assert session.agent._current_progress_remaining == 0.0
    result = session.evaluate(2, seed=0)
    assert [row.length for row in result.rows] == [50, 50]
    assert all(row.return_ >= -17 for row in result.rows)  # decisions
    session.close()


def test_a_repeat_below_one_is_refused_and_written_to_the_recipe(tmp_path):
    with pytest.raises(ValueError, match="action_repeat = 0 must be at least 1"):
        recipe("action_repeat=0")
    (tmp_path / "own.toml").write_text(recipe().to_toml())
    assert load_recipe(str(tmp_path / "own.toml")).action_repeat == 3


class Spinning:
    """Acts by the number of calls, which the frames of an environment show."""

    def __init__(self):
        self.calls = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        assert episode_start.item() == (state is None)
        return np.full(2, 0.1 * self.calls, np.float32), self.calls


@pytest.mark.parametrize("repeat", [1, 4])
def test_a_video_shows_every_step_of_the_environment(repeat):
    agent = Spinning()
    env = make("rlkit/PointMaze-Open-v0", render_mode="rgb_array", max_episode_steps=10)
    frames = list(video.frames_of(agent, env, 1, 0, action_repeat=repeat))
    pause = round(0.5 * video.frames_per_second(env))
    assert len(frames) == 1 + 10 + pause
    assert agent.calls == -(-10 // repeat)
    held = make("rlkit/PointMaze-Open-v0", render_mode="rgb_array", max_episode_steps=10)
    wrapped = make_repeating(lambda env_id: held, repeat, "")
    wrapped.reset(seed=0)
    action = np.full(2, 0.1, np.float32)
    wrapped.step(action)
    np.testing.assert_array_equal(frames[repeat], wrapped.render())


def test_the_check_before_a_training_holds_actions(monkeypatch):
    checked = []

    def spying(build, **limits):
        checked.append(build())
        return []

    monkeypatch.setattr(env_check, "check_env", spying)
    Session.build(recipe(), make, check=True).close()
    Session.build(recipe("action_repeat=1"), make, check=True).close()
    assert [isinstance(env, ActionRepeat) for env in checked] == [True, False]
